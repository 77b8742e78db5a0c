/** The libraries that draw the plots, as text to be put into the page. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

const require = createRequire(import.meta.url);

/** Scripts in the order in which a page needs them, fit to stand between script tags. */
export function plotLibraries(): string[] {
  const files = [
    join(dirname(require.resolve('vega')), 'vega.min.js'),
    join(dirname(require.resolve('vega-lite')), 'vega-lite.min.js'),
    join(dirname(require.resolve('vega-embed')), 'vega-embed.min.js'),
  ];
  return files.map((file) => {
    const script = readFileSync(file, 'utf8');
    // A map that cannot be had would be asked for.
    return script.replace(/^\/\/# sourceMappingURL=.*$/gm, '').replaceAll('</script', '<\\/script');
  });
}
