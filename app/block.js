// What every canvas component begins with: reading its block of bytes (see block.py), and making elements.

class PayloadError extends Error {}

/** The header of a payload, and a function from a place in it to the bytes there (a copy, so that it is aligned). */
function readPayload(bytes) {
  if (bytes.length < 4) throw new PayloadError(`expected a payload of at least 4 bytes, got ${bytes.length}`);
  const length = new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true);
  const start = 4 + length;
  if (start > bytes.length) throw new PayloadError(`the header has ${length} bytes, the payload ${bytes.length}`);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, start)));
  const blob = (place) => {
    const from = start + place.offset;
    if (from + place.length > bytes.length) throw new PayloadError("the payload ends within a blob");
    return bytes.slice(from, from + place.length);
  };
  return { header, blob };
}

/** Whether two blocks are equal: streamlit gives the same one again with every run of the page. */
function sameBytes(a, b) {
  return a.length === b.length && a.every((value, i) => value === b[i]);
}

/** An element with a class, and text where there is any. */
function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

/**
 * What streamlit calls for a component, with every new payload: `start(place)` makes what is drawn there when it is new,
 * `receive(thing, call)` takes the payload, `stop(thing)` takes it away. Payloads that arrive while the script loads
 * are each a call, in any order and all in the same place, and streamlit ends those that are not the newest as soon as
 * they return: a call only counts when it was not ended by the next turn.
 */
function placed(start, receive, stop) {
  const things = new WeakMap();
  return (call) => {
    const place = call.parentElement;
    let counts = false;
    const turn = setTimeout(() => {
      counts = true;
      if (!things.has(place)) things.set(place, start(place));
      receive(things.get(place), call);
    });
    return () => {
      clearTimeout(turn);
      const thing = things.get(place);
      if (!thing || (!counts && place.isConnected)) return; // another call draws here
      things.delete(place);
      stop(thing);
    };
  };
}
