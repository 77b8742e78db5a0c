/**
 * Zipf's distribution over ranks 1 to `ranks`, by rejection-inversion (Hörmann and Derflinger, "Rejection-inversion
 * to generate variates from monotone discrete distributions", 1996): constant time and no table, whatever the size.
 */
export function zipfSampler(
  ranks: number,
  exponent: number,
): (uniform: (attempt: number) => number) => number {
  const integral = (x: number): number => {
    const log = Math.log(x);
    return expm1Over((1 - exponent) * log) * log;
  };
  const density = (x: number): number => Math.exp(-exponent * Math.log(x));
  const inverse = (x: number): number => {
    const t = Math.max(-1, x * (1 - exponent));
    return Math.exp(log1pOver(t) * x);
  };
  const first = integral(1.5) - 1;
  const last = integral(ranks + 0.5);
  const accepted = 2 - inverse(integral(2.5) - density(2));
  return (uniform) => {
    for (let attempt = 0; ; attempt += 1) {
      const u = last + uniform(attempt) * (first - last);
      const x = inverse(u);
      const rank = Math.min(Math.max(Math.round(x), 1), ranks);
      if (rank - x <= accepted || u >= integral(rank + 0.5) - density(rank)) return rank;
    }
  };
}

/** log(1 + x) / x, also where x is almost 0. */
function log1pOver(x: number): number {
  return Math.abs(x) > 1e-8 ? Math.log1p(x) / x : 1 - x * (1 / 2 - x * (1 / 3 - x / 4));
}

/** (exp(x) - 1) / x, also where x is almost 0. */
function expm1Over(x: number): number {
  return Math.abs(x) > 1e-8 ? Math.expm1(x) / x : 1 + (x / 2) * (1 + (x / 3) * (1 + x / 4));
}
