"""The viewer: a Streamlit application over a trained pair. `explain view` starts it; see `app.server`."""
