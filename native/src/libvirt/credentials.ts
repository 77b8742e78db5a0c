/** Credentials that a connection asks for while it is opened. */
import { boundsError } from '../errors.ts';
import type { NativeCredentialRequest } from './table.ts';

/** virConnectCredentialType */
const types = {
  username: 1,
  'auth-name': 2,
  language: 3,
  'client-nonce': 4,
  passphrase: 5,
  'echo-prompt': 6,
  'no-echo-prompt': 7,
  realm: 8,
  external: 9,
} as const;

export type CredentialType = keyof typeof types;

export interface CredentialRequest {
  readonly type: CredentialType;
  /** For people. */
  readonly prompt: string;
  readonly challenge: string;
  /** What to answer when there is nothing better; "" for nothing. */
  readonly suggestion: string;
}

export interface AuthOptions {
  /** What `answer` can be asked for. Default `auth-name` and `passphrase`. */
  readonly types?: readonly CredentialType[];
  /**
   * One text for each request, or undefined to give up: then the connection is refused (`VIR_ERR_AUTH_FAILED` or
   * `VIR_ERR_AUTH_CANCELLED`). What it throws is what `open` rejects with.
   */
  answer(
    requests: readonly CredentialRequest[],
  ): Promise<readonly string[] | undefined> | readonly string[] | undefined;
}

const names = new Map<number, CredentialType>(
  (Object.entries(types) as [CredentialType, number][]).map(([name, number]) => [number, name]),
);

/** For the addon; none without `auth`. */
export function credentialNumbers(auth: AuthOptions | undefined): Uint32Array {
  if (auth === undefined) return new Uint32Array(0);
  const wanted = auth.types ?? (['auth-name', 'passphrase'] as const);
  return Uint32Array.from(wanted, (name) => {
    if (!Object.hasOwn(types, name)) throw boundsError(`there is no credential '${String(name)}'`);
    return types[name];
  });
}

type Question = [readonly NativeCredentialRequest[], (answers?: readonly string[]) => void];

/** What the addon calls. `onError` gets what `answer` threw. */
export function answerer(auth: AuthOptions, onError: (error: unknown) => void): (question: Question) => void {
  return ([natives, respond]) => {
    const requests = natives.map(({ type, ...rest }) => ({ ...rest, type: names.get(type) ?? 'external' }));
    Promise.resolve()
      .then(() => auth.answer(requests))
      .then((answers) => {
        if (answers !== undefined) requireAnswers(answers, requests.length);
        respond(answers);
      })
      .catch((error: unknown) => {
        onError(error);
        respond(undefined);
      });
  };
}

function requireAnswers(answers: readonly string[], count: number): void {
  const texts = Array.isArray(answers) && answers.every((each) => typeof each === 'string');
  if (!texts || answers.length !== count) throw boundsError(`${count} answers are needed, all strings`);
}
