/** Storage pools and their volumes, on the driver inside libvirt. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { connect } from './support.ts';

const NODE = `<node>
  <pool type='dir'><name>images</name><uuid>11111111-3333-4000-8000-000000000001</uuid>
    <target><path>/images</path></target>
    <volume><name>a.img</name><capacity>8589934592</capacity><allocation>4096</allocation>
      <target><path>/images/a.img</path></target></volume>
  </pool>
</node>`;

/** A host of its own, made of this. */
async function hostOf(node: string) {
  const dir = await mkdtemp(join(tmpdir(), 'vmferry-node-'));
  onTestFinished(() => rm(dir, { recursive: true }));
  const file = join(dir, 'node.xml');
  await writeFile(file, node);
  return (await connect(`test://${file}`)).host;
}

test('pools are listed, and a volume is told and removed', async () => {
  const host = await hostOf(NODE);
  expect(await host.pools()).toEqual([
    { name: 'images', uuid: '11111111-3333-4000-8000-000000000001', active: true },
  ]);
  expect(await host.volume('images', 'a.img')).toEqual({
    type: 'file',
    path: '/images/a.img',
    capacityBytes: 8_589_934_592n,
    allocationBytes: 4096n,
  });
  await host.removeVolume('images', 'a.img');
  await expect(host.volume('images', 'a.img')).rejects.toMatchObject({ code: 'VIR_ERR_NO_STORAGE_VOL' });
});

test('what is not there is an error of libvirt’s', async () => {
  const host = await hostOf(NODE);
  await expect(host.volume('images', 'b')).rejects.toMatchObject({ code: 'VIR_ERR_NO_STORAGE_VOL' });
  await expect(host.volume('nowhere', 'a.img')).rejects.toMatchObject({ code: 'VIR_ERR_NO_STORAGE_POOL' });
  await expect(host.removeVolume('nowhere', 'a')).rejects.toMatchObject({ code: 'VIR_ERR_NO_STORAGE_POOL' });
  // That driver has none of these.
  await expect(host.secrets()).rejects.toMatchObject({ code: 'VIR_ERR_NO_SUPPORT' });
  await expect(host.networkFilters()).rejects.toMatchObject({ code: 'VIR_ERR_NO_SUPPORT' });
});
