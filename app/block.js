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
 * `receive(thing, call)` takes the payload, `stop(thing)` takes it away. Streamlit ends a call that a newer one overtook
 * while the script was loading, and both draw in the same place: only the end of the newest call counts.
 */
function placed(start, receive, stop) {
  const kept = new WeakMap();
  return (call) => {
    const place = call.parentElement;
    const one = kept.get(place) ?? { thing: start(place), calls: 0 };
    kept.set(place, one);
    const number = (one.calls += 1);
    receive(one.thing, call);
    return () => {
      if (one.calls !== number) return;
      kept.delete(place);
      stop(one.thing);
    };
  };
}
