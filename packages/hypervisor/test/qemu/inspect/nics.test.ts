import { describe, expect, it } from 'vitest';
import { parseNics } from '../../../src/qemu/inspect/nics.ts';

const nic = (name: string, mac: string, hostInterface?: string): object => ({
  name,
  mac,
  addresses: [],
  ...(hostInterface ? { hostInterface } : {}),
});

describe('the network devices', () => {
  it('are found with their taps, behind hubs and alone', () => {
    const text = `\
hub 1\r
 \\ hub1port1: leg: index=0,type=user,net=10.0.2.0,restrict=off\r
 \\ hub1port0: e1000.0: index=0,type=nic,model=e1000,macaddr=52:54:00:12:34:59\r
hub 0\r
 \\ hp2: n9: index=0,type=tap,ifname=tap9,script=no,downscript=no\r
 \\ hp1: hubnic: index=0,type=nic,model=rtl8139,macaddr=52:54:00:12:34:5a\r
net0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:AB:CD:EF\r
 \\ n0: index=0,type=tap,ifname=tap0,script=no,downscript=no\r
net1: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:11:22:33\r
 \\ n1: index=0,type=user,net=10.0.2.0,restrict=off\r
virtio-net-pci.0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:11:22:34\r
 \\ #net071: index=0,type=socket,\r
`;
    expect(parseNics(text)).toEqual([
      nic('e1000.0', '52:54:00:12:34:59'),
      nic('hubnic', '52:54:00:12:34:5a', 'tap9'),
      nic('net0', '52:54:00:ab:cd:ef', 'tap0'),
      nic('net1', '52:54:00:11:22:33'),
      nic('virtio-net-pci.0', '52:54:00:11:22:34'),
    ]);
  });

  it('with several queues are listed once, and filters are passed over', () => {
    const text = `\
net0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:11:22:33
 \\ n0: index=0,type=tap,ifname=tap0,script=no,downscript=no
filters:
  - dump0: type=filter-dump,file=/tmp/x,status=on
net0: index=1,type=nic,model=virtio-net-pci,macaddr=52:54:00:11:22:33
 \\ n0: index=1,type=tap,ifname=tap0,script=no,downscript=no
`;
    expect(parseNics(text)).toEqual([nic('net0', '52:54:00:11:22:33', 'tap0')]);
  });

  it('have no host interface where QEMU does not know its name', () => {
    const text = `\
net0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:11:22:33
 \\ hostnet0: index=0,type=tap,fd=34
net2: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:11:22:35
 \\ st: index=0,type=stream,unix:/run/x,ifname=tap3
net3: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:11:22:36
`;
    expect(parseNics(text).map((found) => found.hostInterface)).toEqual(Array(3).fill(undefined));
    expect(parseNics(text)).toHaveLength(3);
  });

  it('are on the bridge that a helper put their tap into', () => {
    const text = `\
net1: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:11:22:34
 \\ n1: index=0,type=tap,helper=(null),br=br0
`;
    expect(parseNics(text)).toEqual([nic('net1', '52:54:00:11:22:34', 'br0')]);
  });

  it('are none where there are none', () => {
    expect(parseNics('')).toEqual([]);
    expect(parseNics('n0: index=0,type=user,net=10.0.2.0,restrict=off\r\n')).toEqual([]);
  });
});
