import { stat } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { QmpError } from './errors.ts';

export const taken = (why: string): QmpError =>
  new QmpError(
    'E_QMP_TAKEN',
    `${why}: another client probably holds this monitor; give QEMU a second -qmp socket`,
  );

/** Linux's sun_path, less its final NUL. */
const MAX_PATH_BYTES = 107;

/** Connects to the UNIX socket at `path`; every reason for which that fails has its own `QmpError`. */
export function openSocket(path: string): Promise<Socket> {
  if (Buffer.byteLength(path) > MAX_PATH_BYTES || path.includes('\0')) {
    // Node would cut the path short without a word and connect to whatever is there.
    const text = `no socket can have the path ${path}: the limit is ${MAX_PATH_BYTES} bytes`;
    return Promise.reject(new QmpError('E_QMP_CONNECT', text));
  }
  return new Promise((resolve, reject) => {
    const socket = connect({ path });
    const failed = (error: NodeJS.ErrnoException): void => {
      explain(path, error).then(reject, reject);
    };
    socket.once('error', failed);
    socket.once('connect', () => {
      socket.off('error', failed);
      resolve(socket);
    });
  });
}

async function explain(path: string, error: NodeJS.ErrnoException): Promise<QmpError> {
  const options = { cause: error };
  switch (error.code) {
    case 'ENOENT':
      return new QmpError('E_QMP_NOT_FOUND', `there is no monitor socket at ${path}`, {}, options);
    case 'EACCES':
    case 'EPERM':
      return new QmpError('E_QMP_ACCESS', `no permission to open the monitor socket ${path}`, {}, options);
    case 'ENOTDIR':
    case 'ENOTSOCK':
      return new QmpError('E_QMP_NOT_A_SOCKET', `${path} is not a UNIX socket`, {}, options);
    case 'EPROTOTYPE':
      return new QmpError('E_QMP_NOT_A_SOCKET', `${path} is a datagram socket, not a monitor`, {}, options);
    case 'ECONNREFUSED':
      // Linux says the same of a file that is no socket and of a socket where nobody listens.
      return (await isSocket(path))
        ? new QmpError('E_QMP_REFUSED', `nobody listens on the monitor socket ${path}`, {}, options)
        : new QmpError('E_QMP_NOT_A_SOCKET', `${path} is not a UNIX socket`, {}, options);
    case 'EAGAIN':
      // A monitor in use leaves further clients in its short queue; this one did not even get into it.
      return taken(`${path} takes no connection`);
    default:
      return new QmpError(
        'E_QMP_CONNECT',
        `cannot connect to the monitor ${path}: ${error.message}`,
        {},
        options,
      );
  }
}

async function isSocket(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isSocket();
  } catch {
    // It went away meanwhile, as the socket of a QEMU that ends does.
    return true;
  }
}
