import { isIPv6 } from 'node:net';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  AnnounceInputError,
  formatIp,
  formatMac,
  parseAnnounceIp,
  parseIp,
  parseMac,
} from '../src/guest-address.ts';

const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });

describe('parseMac', () => {
  it('reads back every unicast MAC that formatMac wrote', () => {
    fc.assert(
      fc.property(bytes(6), (raw) => {
        const mac = raw.with(0, raw[0]! & 0xfe);
        fc.pre(mac.some((byte) => byte !== 0));
        expect(parseMac(formatMac(mac)).bytes).toEqual(mac);
        expect(parseMac(formatMac(mac).toUpperCase().replaceAll(':', '-')).text).toBe(formatMac(mac));
      }),
    );
  });

  it.each([
    '',
    '52:54:00:12:34',
    '52:54:00:12:34:56:78',
    '52:54:00:12:34:5g',
    '52:54-00:12:34:56',
    '525400123456',
    ' 52:54:00:12:34:56',
    '52:54:00:12:34:56\n',
    '00:00:00:00:00:00',
    'ff:ff:ff:ff:ff:ff',
    '01:00:5e:00:00:01',
    '33:33:00:00:00:01',
  ])('refuses %j and says what to give instead', (text) => {
    expect(() => parseMac(text)).toThrow(AnnounceInputError);
    expect(() => parseMac(text)).toThrow(
      expect.objectContaining({ code: 'E_ANNOUNCE', remedy: expect.any(String) }),
    );
  });
});

describe('parseIp', () => {
  it('reads every IPv6 address as the URL parser of the platform does', () => {
    fc.assert(
      fc.property(fc.ipV6(), (text) => {
        fc.pre(isIPv6(text));
        const expected = new URL(`http://[${text}]/`).hostname.slice(1, -1);
        try {
          expect(parseIp(text).text).toBe(expected);
        } catch (error) {
          if (!(error instanceof AnnounceInputError)) throw error;
          expect(expected).toMatch(/^(::1?|ff.*|::ffff:.*)$/);
        }
      }),
      { numRuns: 1000 },
    );
  });

  it('writes the bytes of IPv6 addresses with runs of zeros in the one canonical form', () => {
    const sparse = fc.array(fc.constantFrom(0, 0, 0, 1, 0x12), { minLength: 16, maxLength: 16 });
    fc.assert(
      fc.property(sparse, (raw) => {
        const address = Uint8Array.from(raw);
        const words = Array.from({ length: 8 }, (_, i) =>
          ((address[2 * i]! << 8) | address[2 * i + 1]!).toString(16),
        );
        const expected = new URL(`http://[${words.join(':')}]/`).hostname.slice(1, -1);
        expect(formatIp(address)).toBe(expected);
      }),
    );
  });

  it('reads back every IPv4 address that one host can own', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 223 }), bytes(3), (first, rest) => {
        fc.pre(first !== 127);
        const raw = Uint8Array.of(first, ...rest);
        expect(parseIp(formatIp(raw))).toMatchObject({ family: 4, bytes: raw, text: raw.join('.') });
      }),
    );
  });

  it('reads an IPv6 address with an embedded IPv4 address', () => {
    expect(parseIp('64:ff9b::192.0.2.33').bytes).toEqual(
      Uint8Array.of(0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, 192, 0, 2, 33),
    );
    expect(parseIp('1:2:3:4:5:6:7.8.9.10').text).toBe('1:2:3:4:5:6:708:90a');
  });

  it('reads "::" at the start, in the middle and at the end', () => {
    expect(parseIp('::2:1').bytes).toEqual(Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1));
    expect(parseIp('fe80::1').bytes).toEqual(
      Uint8Array.of(0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1),
    );
    expect(parseIp('2001:db8::').bytes).toEqual(Uint8Array.of(0x20, 1, 0xd, 0xb8, ...new Array(12).fill(0)));
    expect(parseIp('1:2:3:4:5:6:7::').text).toBe('1:2:3:4:5:6:7:0');
  });

  it.each([
    '',
    '10.0.0.1/24',
    '010.0.0.1',
    '10.0.0',
    'guest.example',
    'fe80::1%eth0',
    '1::2::3',
    '0.0.0.0',
    '0.1.2.3',
    '127.0.0.1',
    '224.0.0.251',
    '250.1.1.1',
    '255.255.255.255',
    '::',
    '::1',
    'ff02::1',
    '::ffff:10.0.0.1',
  ])('refuses %j', (text) => {
    expect(() => parseIp(text)).toThrow(AnnounceInputError);
  });

  it('cuts a hostile text short in its message', () => {
    expect(() => parseIp('x'.repeat(100_000))).toThrow(/^.{0,120}$/);
  });
});

const macA = '52:54:00:00:00:0a';

describe('parseAnnounceIp', () => {
  it('reads an address alone, and one that says which NIC it belongs to', () => {
    expect(parseAnnounceIp('10.0.0.2')).toEqual({ ip: expect.objectContaining({ text: '10.0.0.2' }) });
    expect(parseAnnounceIp('52:54:00:00:00:0A=FD00::2')).toMatchObject({
      mac: { text: macA },
      ip: { family: 6, text: 'fd00::2' },
    });
  });

  it.each([
    '',
    '=10.0.0.2',
    `${macA}=`,
    `${macA}=10.0.0.2=1`,
    '10.0.0.2=52:54:00:00:00:0a',
    `${macA} 10.0.0.2`,
  ])('refuses %j', (text) => {
    expect(() => parseAnnounceIp(text)).toThrow(AnnounceInputError);
  });
});
