/** What becomes of a domain's definition, what may differ there, and what is refused before anything is touched. */
import { randomUUID } from 'node:crypto';
import { expect, test } from 'vitest';
import { bootSectorDomain, runsOn } from '../guest/boot-sector-domain.ts';
import { follow } from '../migrate/agents.ts';
import { stateOn } from '../rig/libvirt-guest.ts';
import { useTwoLibvirts } from '../rig/two-libvirts.ts';

const rig = useTwoLibvirts();

async function domainXml(name: string): Promise<{ readonly xml: string; readonly uuid: string }> {
  const uuid = randomUUID();
  rig.libvirts.removeLater(uuid);
  return { uuid, xml: await bootSectorDomain({ name, uuid }) };
}

test('a persistent domain stays defined where it was unless told otherwise, and is defined where it goes', async () => {
  const { to, hosts } = rig.libvirts;
  const { xml, uuid } = await domainXml('kept');
  const defined = await to.a.define(xml);
  await defined.create();
  await runsOn(hosts.a, 'kept');
  const there = await rig.libvirts.agents('a');
  const { report } = await follow(there.migrate({ guest: 'libvirt:kept', strategy: 'precopy' }));
  expect(report.error).toBeNull();
  await runsOn(hosts.b, 'kept');
  expect(await stateOn(to.a, uuid)).toBe('shut-off (migrated)');
  expect(await (await to.b.domainByUuid(uuid)).isPersistent()).toBe(true);
  const back = await rig.libvirts.agents('b');
  const leaving = { guest: 'libvirt:kept', strategy: 'postcopy', undefineSource: true } as const;
  const { report: second } = await follow(back.migrate(leaving));
  expect(second.error).toBeNull();
  await runsOn(hosts.a, 'kept');
  expect(await stateOn(to.b, uuid)).toBe('gone');
});

test('a paused domain arrives paused, under the name and with the XML that it is to have and to keep there', async () => {
  const { to, hosts } = rig.libvirts;
  const { xml, uuid } = await domainXml('here');
  const domain = await to.a.define(xml);
  await domain.create();
  await runsOn(hosts.a, 'here');
  await domain.suspend();
  const agents = await rig.libvirts.agents('a');
  const destXml = (await domain.xml(['migratable'])).replaceAll('here.serial', 'there.serial');
  const { report } = await follow(
    agents.migrate({ guest: 'libvirt:here', destGuest: 'libvirt:there', strategy: 'precopy', destXml }),
  );
  expect(report.error).toBeNull();
  expect(await stateOn(to.b, uuid)).toMatch(/^paused/);
  const arrived = await to.b.domainByName('there');
  expect(await arrived.xml()).toContain('there.serial');
  const kept = await arrived.xml(['inactive']);
  expect(kept).toContain('there.serial');
  expect(kept).toContain('<name>there</name>');
  await arrived.resume();
  await runsOn(hosts.b, 'there');
});

test('a name that is taken, a libvirt of the peer’s choosing and a source that is to stay are refused', async () => {
  const { to, hosts } = rig.libvirts;
  const [mine, other] = [await domainXml('wanted'), await domainXml('wanted')];
  await to.a.createTransient(mine.xml);
  await runsOn(hosts.a, 'wanted');
  await to.b.define(other.xml);
  const agents = await rig.libvirts.agents('a');
  const refused = async (request: object, error: object) => {
    const { report } = await follow(agents.migrate({ guest: 'libvirt:wanted', ...request }));
    expect(report).toMatchObject({ outcome: 'refused', error: { guestRunsOn: 'source', ...error } });
    await runsOn(hosts.a, 'wanted');
  };
  await refused({}, { code: 'E_NAME_TAKEN', side: 'dest', message: expect.stringContaining('wanted') });
  const elsewhere = 'libvirt:x?connect=qemu+unix:///system?socket=/run/other';
  await refused({ destGuest: elsewhere }, { code: 'E_REFUSED', side: 'dest' });
  await refused({ destroySource: false }, { code: 'E_UNSUPPORTED', side: 'source' });
  await refused(
    { resume: true },
    {
      ...{ code: 'E_REFUSED', side: 'source' },
      message: expect.stringContaining('no unfinished post-copy of wanted'),
    },
  );
  const { report } = await follow(agents.migrate({ guest: 'libvirt:nobody' }));
  expect(report.error).toMatchObject({
    code: 'E_GUEST_UNREACHABLE',
    message: expect.stringContaining('nobody'),
  });
});
