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
    const found = typeof text === "string" && FORM.exec(text);
    const numbers = found && [Number(found[1]), Number(found[2])];
    if (!numbers || !numbers.every(Number.isSafeInteger)) {
      throw new Error(`a position is MILLISECONDS-SEQUENCE, not ${JSON.stringify(text)}`);
    }
    return new Position(...numbers);
  }

  isAfter(other) {
    return this.milliseconds === other.milliseconds
      ? this.sequence > other.sequence
      : this.milliseconds > other.milliseconds;
  }

  toString() {
    return `${this.milliseconds}-${this.sequence}`;
  }
}
