import { randomBytes } from 'node:crypto';

/** The name of a migration's directory of sockets: nobody else can guess it. */
export function newRendezvous(): string {
  return randomBytes(12).toString('hex');
}
