import { libvirtSchema } from '@vmferry/agent-core/config';
import { libvirtPolicy } from '@vmferry/agent-core/libvirt-config';
import { expect, test } from 'vitest';

test('by default no image is created, nothing is changed and no argument is taken', () => {
  expect(libvirtPolicy()).toEqual(libvirtSchema.parse({}));
  expect(libvirtPolicy()).toEqual({
    imageDirectories: [],
    baseImageDirectories: [],
    emulators: [],
    allowQemuArguments: false,
    allowXmlChanges: [],
  });
});

test.each([
  [{ imageDirectories: ['images'] }, /absolute path/],
  [{ allowXmlChanges: ['memory'] }, /disk-source/],
  [{ allowXmlChanges: ['name'] }, /--dest-guest gives a domain another name/],
  [{ imageDirectory: ['/a'] }, /imageDirectory/],
  [{ diskDirectories: '/a' }, /array/],
])('%j is refused', (policy, words) => {
  expect(libvirtSchema.safeParse(policy).error?.message).toMatch(words);
});

test('a directory is where libvirt sees it, and where the agent does', () => {
  const { imageDirectories } = libvirtSchema.parse({
    imageDirectories: ['/srv/images/', { path: '/var/lib/images', here: '/host/var/lib/images' }],
  });
  expect(imageDirectories).toEqual([
    { path: '/srv/images', here: '/srv/images' },
    { path: '/var/lib/images', here: '/host/var/lib/images' },
  ]);
});
