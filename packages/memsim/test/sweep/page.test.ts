import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { type Browser, chromium } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sweepPage } from '../../src/page/sweep-page.ts';
import { parseSweep } from '../../src/scenario/parse.ts';
import { runSweep, type SweepResult } from '../../src/sweep/run-sweep.ts';

const SWEEP = `
name: "a </script> of a name & more"
strategies: [precopy, postcopy, hybrid]
guests: [idle, memory-hog]
links:
  lan: { bandwidth: 1gbit }
  wan: { bandwidth: 200mbit, latency: 10ms }
`;
const BROWSER = process.env['CHROMIUM'] ?? '/usr/bin/chromium';
const MEMORY: Readonly<Record<string, string>> = { idle: '256 MiB', 'memory-hog': '512 MiB' };
const nothing = () => {
  throw new Error('nothing beside it');
};

describe.skipIf(!existsSync(BROWSER))('the page of a sweep, in a browser without a network', () => {
  let browser: Browser;
  let folder: string;
  let result: SweepResult;
  let html: string;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'vmferry-page-'));
    const sweep = parseSweep(SWEEP, 'sweep.yaml', { guestFile: nothing, trace: nothing });
    result = await runSweep(sweep.runs);
    html = sweepPage({ name: sweep.name, about: '<b>about</b>', result, at: new Date(0) });
    browser = await chromium.launch({ executablePath: BROWSER, args: ['--no-sandbox'] });
  }, 60_000);
  afterAll(async () => {
    await browser.close();
    await rm(folder, { recursive: true });
  });

  /** Opens it, waits until all is drawn, and says what went wrong on the way. */
  async function open(text: string) {
    const file = join(folder, 'sweep.html');
    await writeFile(file, text);
    const context = await browser.newContext({ offline: true });
    const page = await context.newPage();
    const complaints: string[] = [];
    const requests: string[] = [];
    page.on('console', (message) => {
      if (message.type() === 'error' || message.type() === 'warning') complaints.push(message.text());
    });
    page.on('pageerror', (error) => complaints.push(error.message));
    page.on('request', (request) => {
      if (!/^(file|data|blob):/.test(request.url())) requests.push(request.url());
    });
    await page.goto(pathToFileURL(file).href);
    await page.evaluate('window.drawn.then(() => undefined)');
    return { page, complaints, requests };
  }

  it('draws a point for each run, and the courses of the case that is chosen', async () => {
    const { page, complaints, requests } = await open(html);
    const marks = (where: string) => page.locator(`${where} path`).count();
    expect(result.rows).toHaveLength(12);
    expect(result.rows.every(({ outcome }) => outcome === 'completed')).toBe(true);
    expect(await marks('#downtime g.mark-symbol.role-mark')).toBe(12);
    const shown = async (guest: string) => {
      const runs = result.rows.flatMap((row, run) =>
        row.guest === guest && row.link === 'lan' ? [run] : [],
      );
      const rounds = result.courses
        .filter(({ run }) => runs.includes(run))
        .flatMap((course) => course.rounds);
      await expect.poll(() => marks('#courses g.mark-rect.role-mark')).toBe(rounds.length);
      // Remaining bytes and faults: a line for each strategy.
      expect(await marks('#courses g.mark-line.role-mark')).toBe(2 * 3);
    };
    for (const guest of ['idle', 'memory-hog']) {
      await page.locator('#cases select').selectOption({ label: `${guest}, ${MEMORY[guest]}, lan` });
      await shown(guest);
    }
    expect(await page.locator('h1').textContent()).toBe('a </script> of a name & more');
    expect(await page.locator('b').count()).toBe(0);
    expect({ complaints, requests }).toEqual({ complaints: [], requests: [] });
  });

  it('has what chooses the case above its plots, and says which shape is which link', async () => {
    const { page } = await open(html);
    const top = async (what: string) => (await page.locator(what).boundingBox())!.y;
    expect(await top('#cases select')).toBeLessThan(await top('#courses'));
    expect(await page.locator('#downtime .role-legend-label text').allTextContents()).toEqual(
      expect.arrayContaining(['lan', 'wan', 'precopy']),
    );
  });

  it('leaves a plot out that nothing is drawn in', async () => {
    const failing =
      'strategies: [precopy]\nguests: [memory-hog]\nlinks: { slow: { bandwidth: 10mbit } }\n' +
      'migration: { onStall: abort }\n';
    const { runs } = parseSweep(failing, 'sweep.yaml', { guestFile: nothing, trace: nothing });
    const failed = await runSweep(runs);
    expect(failed.rows.map(({ outcome }) => outcome)).toEqual(['failed']);
    const { page, complaints } = await open(sweepPage({ name: 'slow', result: failed, at: new Date(0) }));
    expect(await page.locator('p').first().textContent()).toMatch(/^1 simulated migration\. Not drawn: 1 /);
    expect(await page.locator('#downtime').count()).toBe(0);
    expect(await page.locator('#courses g.mark-rect.role-mark path').count()).toBe(
      failed.courses[0]!.rounds.length,
    );
    expect(complaints).toEqual([]);
  });

  it('colours points by strategy', async () => {
    const { page } = await open(html);
    const fills = await page
      .locator('#downtime g.mark-symbol.role-mark path')
      .evaluateAll((paths) => paths.map((path) => path.getAttribute('fill')));
    expect(new Set(fills).size).toBe(3);
  });
});

it('a browser is there where nothing may be skipped', () => {
  if (process.env['CI']) expect(existsSync(BROWSER)).toBe(true);
});
