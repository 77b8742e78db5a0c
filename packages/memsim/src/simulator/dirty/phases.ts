/** Workloads that take turns. */
import type { Span, Writer } from './writer.ts';

interface TimedWriter {
  readonly seconds: number;
  readonly writer: Writer;
}

/** One after the other, over and over; each one's time stands still while it is not its turn. */
export function phases(parts: readonly TimedWriter[]): Writer {
  const cycle = parts.reduce((sum, { seconds }) => sum + seconds, 0);
  const begins = parts.map((_, index) =>
    parts.slice(0, index).reduce((sum, { seconds }) => sum + seconds, 0),
  );
  const own = (index: number, t: number): number => {
    const cycles = Math.floor(t / cycle);
    const { seconds } = parts[index]!;
    return cycles * seconds + Math.min(seconds, Math.max(0, t - cycles * cycle - begins[index]!));
  };
  const turnAt = (t: number): number => {
    const within = t % cycle;
    let index = parts.length - 1;
    while (index > 0 && begins[index]! > within) index -= 1;
    return index;
  };
  const ownSpan = (index: number, { from, to, at }: Span): Span => ({
    from: own(index, from),
    to: own(index, to),
    at: own(index, at),
  });
  return {
    spare: (a, b, untouched) => {
      for (const [index, { writer }] of parts.entries()) {
        const [from, to] = [own(index, a), own(index, b)];
        if (to > from) writer.spare(from, to, untouched);
      }
    },
    access: (span, rates) => {
      const index = turnAt(span.at);
      parts[index]!.writer.access(ownSpan(index, span), rates);
    },
    walks: (span, into) => {
      const index = turnAt(span.at);
      parts[index]!.writer.walks(ownSpan(index, span), into);
    },
    nextChange: (t) => {
      const index = turnAt(t);
      const { seconds, writer } = parts[index]!;
      const at = own(index, t);
      const turnEnds = Math.floor(t / cycle) * cycle + begins[index]! + seconds;
      return Math.min(Math.max(turnEnds, t + 1e-6), t + writer.nextChange(at) - at);
    },
    turn: (t) => {
      const index = turnAt(t);
      return `${index}(${parts[index]!.writer.turn(own(index, t))})`;
    },
  };
}
