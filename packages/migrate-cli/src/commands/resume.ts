import { logLevels } from '@vmferry/agent-core/log';
import { type Command, Option } from 'commander';
import type { CommandContext } from '../context.ts';
import { runMigration } from '../migration.ts';
import { agentUrl } from '../parsers.ts';
import type { MigrateOptions } from '../request.ts';
import { addConnectionOptions, addLibvirtOption, addStateDirOption } from '../settings.ts';

const HELP = `
After a post-copy that came to a halt (exit status 3) the domain is paused on the source and short of memory on the
destination: "virsh domstate --reason" says "paused (post-copy failed)" there and "running (post-copy failed)" here.
Bring the link and both agents back, then finish it. It may be tried any number of times, and it cannot be cancelled.

Say --dest-guest and --undefine-source again where the migration was given them.

Guests of libvirt's only; the README says what to do for others.

Example:
  vmferry resume libvirt:web1 --from wss://host1:4446 --to wss://host2:4447`;

type ResumeOptions = Pick<
  MigrateOptions,
  'from' | 'to' | 'destGuest' | 'undefineSource' | 'json' | 'events' | 'junit' | 'logLevel'
>;

export function addResumeCommand(program: Command, context: CommandContext): void {
  const command = program
    .command('resume')
    .description('Finishes a post-copy that came to a halt.')
    .argument('<guest>', 'libvirt:NAME')
    .addOption(new Option('--from <url>', 'source agent; by default inside this command').argParser(agentUrl))
    .addOption(new Option('--to <url>', 'destination agent').argParser(agentUrl).makeOptionMandatory())
    .option('--dest-guest <guest>', 'the guest as the destination names it (default: as the source does)')
    .option('--undefine-source', 'remove the source’s definition of the domain once it has moved')
    .option('--json', 'print the report as one JSON object at the end, and nothing else')
    .option('--junit <file>', 'write the report as a JUnit test result, for CI systems')
    .option('--events <file>', 'write every event to a file, one JSON object a line ("-": standard output)');
  addLibvirtOption(addStateDirOption(addConnectionOptions(command)))
    .addOption(
      new Option('--log-level <level>', 'of an agent inside this command')
        .choices(logLevels)
        .default('silent'),
    )
    .addHelpText('after', HELP)
    .action(async (guest: string, options: ResumeOptions) => {
      context.exit(await runMigration(guest, { ...PLAIN, ...options, resume: true }, context));
    });
}

/** What only a migration that begins is asked. */
const PLAIN = {
  strategy: 'postcopy',
  maxDowntime: 300,
  streams: 1,
  compress: 'off',
  copyStorage: 'none',
} as const;
