// Draws the state of the connection, in the title too, and the tally. It knows nothing of messages.

import { nextWords, stateWords, tallyWords } from "./words.js";

const [stateElement, nextElement, tallyElement] = ["state", "next", "tally"].map((id) =>
  document.getElementById(id),
);

export function drawPanel(link, stream) {
  const [state, short, sentence] = stateWords(link, stream);
  stateElement.dataset.state = state;
  write(stateElement, sentence);
  write(nextElement, nextWords(link));
  write(tallyElement, tallyWords(stream));
  document.title = `Hello: ${short}`;
}

/** Leaves equal text alone: a screen reader reads a status again each time that it is written. */
function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
