/**
 * Faults in each phase of a migration, where no other file has them (docs/testing.md has the table): the domain runs on
 * exactly one host, whole, or is finished as an operator would.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Cell, cellName, play } from '../faults/cells.ts';
import { LibvirtLab } from '../faults/libvirt-lab.ts';
import { twoLibvirts } from '../faults/rig.ts';

let rig: Awaited<ReturnType<typeof twoLibvirts>>;
beforeAll(async () => {
  rig = await twoLibvirts();
});
afterAll(() => rig?.close());

interface Expected {
  readonly runsOn: 'source' | 'dest';
  /** `killed`: the source agent was. */
  readonly outcome: 'failed' | 'attention' | 'killed';
  /** What an operator did, if anything. */
  readonly by?: RegExp;
}

const stays = { runsOn: 'source', outcome: 'failed' } as const;
const staysUntold = { runsOn: 'source', outcome: 'killed' } as const;
/** Whole and paused over there, until an operator ends it. */
const staysTwofold = { ...staysUntold, by: /^virsh destroy there: running .* \| paused/ } as const;
const finishedLater = { runsOn: 'dest', outcome: 'killed', by: /^resume 1$/ } as const;
const movedUntold = { runsOn: 'dest', outcome: 'attention' } as const;

type Row = readonly [Cell, Expected];

/** Each with a domain of its own, one row after the other. */
const tracks: Readonly<Record<string, readonly Row[]>> = {
  'agents killed between the guest’s stop and its running there': [
    [{ moment: 'stopped', fault: 'kill source' }, staysUntold],
    [{ moment: 'loaded', fault: 'kill dest' }, stays],
    [{ moment: 'loaded', fault: 'kill both' }, staysUntold],
    [{ moment: 'committing', fault: 'kill source' }, staysTwofold],
    [
      { moment: 'committed', fault: 'kill source' },
      { runsOn: 'dest', outcome: 'killed', by: /^virsh resume there: gone \| paused/ },
    ],
    [
      { moment: 'accepted', fault: 'kill dest' },
      { ...movedUntold, by: /^virsh resume there: gone \| paused/ },
    ],
  ],
  'a link that falls silent in libvirt’s set-up, after the commit, and in post-copy': [
    [{ moment: 'set-up', fault: 'stall' }, stays],
    [{ moment: 'accepted', fault: 'stall' }, movedUntold],
    [
      { moment: 'post-copy', fault: 'stall' },
      { ...movedUntold, by: /^resume 1$/ },
    ],
  ],
  'agents killed while the QEMUs of a halted post-copy are resumed': [
    [{ moment: 'resume, nobody asked', fault: 'kill source' }, finishedLater],
    [
      { moment: 'resume, there to be asked', fault: 'kill dest' },
      { ...movedUntold, by: /^resume 1$/ },
    ],
  ],
};

async function rows(lab: LibvirtLab, wanted: readonly Row[]): Promise<void> {
  for (const [cell, { runsOn, outcome, by = /^$/ }] of wanted) {
    const ended = await play(lab, cell);
    const found = { cell: cellName(cell), runsOn: ended.runsOn, outcome: ended.report?.outcome ?? 'killed' };
    expect(found).toEqual({ cell: cellName(cell), runsOn, outcome });
    expect(ended.by.join('; '), cellName(cell)).toMatch(by);
  }
}

async function withLab(name: string, use: (lab: LibvirtLab) => Promise<void>): Promise<void> {
  const lab = await LibvirtLab.boot(rig.libvirts, name, { light: true });
  try {
    await use(lab);
  } finally {
    await lab.close();
  }
}

test.concurrent.each(Object.keys(tracks))(
  '%s leave the domain on one host, whole',
  async (name) => {
    await withLab(String(Object.keys(tracks).indexOf(name)), (lab) => rows(lab, tracks[name]!));
  },
  150_000,
);
