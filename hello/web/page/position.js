// Where a message stands in the stream. It knows neither frames nor drawing.

const FORM = /^(0|[1-9][0-9]{0,15})-(0|[1-9][0-9]{0,15})$/;

/** A pair of integers. It compares as such, never as text: 9-0 comes before 10-0. */
export class Position {
  constructor(milliseconds, sequence) {
    this.milliseconds = milliseconds; // UNIX time
    this.sequence = sequence;
  }

  /** Reads MILLISECONDS-SEQUENCE, decimal without leading zeros; throws an Error on anything else. */
  static parse(text) {
    const numbers = (typeof text === "string" && FORM.exec(text)?.slice(1).map(Number)) || [NaN];
    if (numbers.every(Number.isSafeInteger)) return new Position(...numbers);
    throw new Error(`a position is MILLISECONDS-SEQUENCE, not ${JSON.stringify(text)}`);
  }

  isAfter({ milliseconds, sequence }) {
    return (this.milliseconds - milliseconds || this.sequence - sequence) > 0;
  }

  toString() {
    return `${this.milliseconds}-${this.sequence}`;
  }
}
