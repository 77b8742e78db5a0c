/** Which disks libvirt is told to copy. */
import { disksToCopy } from '@vmferry/hypervisor/libvirt/preflight/copied-disks';
import type { DiskImage } from '@vmferry/hypervisor/libvirt/preflight/domain-facts';
import type { CopyStorage } from '@vmferry/hypervisor/libvirt/preflight/plan';
import { expect, test } from 'vitest';
import { shape } from '../support/domain.ts';

const disk = (target: string, type: string, source: string, more = '') =>
  `<disk type='${type}'><driver type='raw'/>${source === '' ? '' : `<source ${source}/>`}<target dev='${target}'/>${more}</disk>`;

const nfs = disk('vdb', 'file', `file='/nfs/b'`);
const rbd = disk('vdc', 'network', `protocol='rbd' name='pool/c'`);
const devices = [
  disk('vda', 'file', `file='/img/a'`),
  nfs,
  rbd,
  disk('vdd', 'block', `dev='/dev/vg/d'`),
  disk('vde', 'volume', `pool='local' volume='e'`),
  disk('vdf', 'volume', `pool='ceph' volume='f'`),
  disk('vdg', 'file', `file='/img/g'`, '<readonly/>'),
  disk('vdh', 'file', `file='/img/h'`, '<shareable/>'),
  disk('vdi', 'file', ''),
  disk('vdj', 'file', `file='/img/nobody-saw'`),
].join('');

const seen = (target: string, shared: boolean): DiskImage => ({
  target,
  file: { inode: 1, filesystem: shared ? 'nfs4' : 'ext4', shared },
});
const images = [
  seen('vda', false),
  seen('vdb', true),
  { target: 'vdc' },
  { target: 'vdd', device: 'dm:LVM-1' },
  seen('vde', false),
  { target: 'vdf', networked: true },
  seen('vdg', false),
  seen('vdh', false),
  { target: 'vdj' },
];

function copied(copyStorage: CopyStorage, there = devices): string[] {
  const { disks } = shape({ devices });
  return disksToCopy({ copyStorage, disks, wanted: shape({ devices: there }).disks, images });
}

test('disks that both hosts reach are not copied over themselves, beside others that are', () => {
  expect(copied('all')).toEqual(['vda', 'vdd', 'vde', 'vdj']);
  expect(copied('inc')).toEqual(['vda', 'vdd', 'vde', 'vdj']);
  expect(copied('none')).toEqual([]);
});

test('what is to lie elsewhere on the destination is copied there, also from storage that both hosts reach', () => {
  const moved = devices
    .replace(nfs, nfs.replace('/nfs/b', '/img/b'))
    .replace(rbd, rbd.replace('pool/c', 'pool/other'));
  expect(copied('all', moved)).toEqual(['vda', 'vdb', 'vdc', 'vdd', 'vde', 'vdj']);
});
