/** iproute2's `ip` and `bridge`, for what sysfs does not tell. */
import { execFile } from 'node:child_process';

/** Runs a tool without a shell and gives its standard output; rejects with a message that names the tool. */
export type RunTool = (tool: 'ip' | 'bridge', args: readonly string[]) => Promise<string>;

/** Every wait for a tool ends after this time. */
const toolTimeoutMs = 2000;
/** A host's neighbour table may be long; some 100 bytes an entry. */
const mostOutputBytes = 16 * 1024 * 1024;

export const runTool: RunTool = (tool, args) =>
  new Promise((resolve, reject) => {
    execFile(
      tool,
      [...args],
      { timeout: toolTimeoutMs, maxBuffer: mostOutputBytes, env: toolEnvironment() },
      (error, stdout, stderr) => {
        if (error === null) return resolve(stdout);
        const why =
          error.killed === true
            ? `no answer within ${toolTimeoutMs} ms`
            : stderr.trim().split('\n')[0] || error.message;
        reject(new Error(`${tool} ${args.join(' ')}: ${why}`, { cause: error }));
      },
    );
  });

/** A daemon's PATH often lacks the directories that iproute2 is in. */
function toolEnvironment(): NodeJS.ProcessEnv {
  return { ...process.env, LC_ALL: 'C', PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin:/usr/bin:/bin` };
}
