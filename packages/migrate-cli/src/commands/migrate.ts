import { logLevels } from '@vmferry/agent-core/log';
import { compressModes, stallActions, storageCopies, strategies } from '@vmferry/engine/options';
import { libraryAbout, libraryNames } from '@vmferry/memsim/guest-file/library';
import { type Command, Option } from 'commander';
import type { CommandContext } from '../context.ts';
import { runMigration } from '../migration.ts';
import { agentUrl, collected, duration, rate, wholeNumber } from '../parsers.ts';
import type { MigrateOptions } from '../request.ts';
import { addConnectionOptions, addLibvirtOption, addStateDirOption } from '../settings.ts';

const LIBRARY = libraryNames.map((name) => `  ${`sim:${name}`.padEnd(16)} ${libraryAbout(name)}`).join('\n');

const HELP = `
Durations: 300ms, 2s, 10m, 1h. Rates: 1gbit, 500mbit, 100MB/s, 12MiB/s.

With --from the migration runs in that agent; Ctrl-C cancels it there, and when the connection to the agent
is lost it goes on ('vmferry watch' shows it). With --to alone the source agent runs inside this command;
without either both do, which moves a guest between two QEMUs on this host. The first Ctrl-C cancels and
waits for the outcome; a simulated guest that cannot be cancelled any more ends with the command after two seconds.

A domain of libvirt's is named by its name, libvirt:NAME or libvirt:NAME?connect=URI, and moves peer-to-peer between
the two libvirts, with the agents between them (docs/libvirt.md). It ends on the source, as libvirt has it.

Simulated guests need no hypervisor: sim:./FILE.yaml is one of your own (docs/memsim.md), and there are
${LIBRARY}

Examples:
  Between two QEMUs on this host, the second started with -incoming defer -S:
    vmferry migrate qemu:/run/vm/web1.sock --dest-guest qemu:/run/vm/web1-new.sock

  From this host to another, where 'vmferry agent dest' runs:
    vmferry migrate qemu:/run/vm/web1.sock --to wss://host2:4447 --ca ca.crt --token-file token

  A simulated guest, in a pipeline without any hypervisor (docs/memsim.md):
    vmferry migrate sim:web --strategy hybrid --junit junit.xml

  A domain, with its disks, from one host's libvirt to another's:
    vmferry migrate libvirt:web1 --from wss://host1:4446 --to wss://host2:4447 --copy-storage all

  Between two agents, at most 100 ms of downtime, over by ten minutes, for a script:
    vmferry migrate qemu:/run/vm/web1.sock --from wss://host1:4446 --to wss://host2:4447 \\
      --max-downtime 100ms --deadline 10m --json > report.json`;

export function addMigrateCommand(program: Command, context: CommandContext): void {
  const command = program
    .command('migrate')
    .description('Moves a running guest to another host.')
    .argument('<guest>', 'qemu:/PATH/TO/QMP.SOCK, libvirt:NAME or sim:NAME')
    .addOption(new Option('--from <url>', 'source agent; by default inside this command').argParser(agentUrl))
    .addOption(
      new Option('--to <url>', 'destination agent; by default inside this command').argParser(agentUrl),
    )
    .option('--dest-guest <guest>', 'the guest as the destination names it (default: as the source does)')
    .addOption(
      new Option('--strategy <strategy>', 'how to move the memory').choices(strategies).default('auto'),
    )
    .addOption(
      new Option('--max-downtime <duration>', 'how long the guest may stand still')
        .argParser(duration)
        .default(300, '300ms'),
    )
    .addOption(
      new Option('--deadline <duration>', 'when all must be over (default: never)').argParser(duration),
    )
    .addOption(
      new Option(
        '--head-start <duration>',
        'post-copy: how long memory goes ahead of the guest (default: 1s; 0s: none does)',
      ).argParser(duration),
    )
    .addOption(
      new Option('--max-bandwidth <rate>', 'of the link, for all streams (default: no limit)').argParser(
        rate,
      ),
    )
    .addOption(new Option('--streams <n>', 'data streams, 1 to 16').argParser(wholeNumber).default(1))
    .addOption(new Option('--compress <mode>', 'of pages').choices(compressModes).default('auto'))
    .addOption(
      new Option('--on-stall <action>', 'when the guest writes faster than the link carries').choices(
        stallActions,
      ),
    )
    .addOption(
      new Option('--announce-ip <addr>', 'address of the guest to announce; may be repeated').argParser(
        collected,
      ),
    )
    .option('--guest-agent <socket>', 'socket of the guest agent on the source host, to learn addresses')
    .option('--keep-source', 'leave the source’s QEMU paused instead of ending it')
    .option('--undefine-source', 'libvirt: remove the source’s definition of the domain once it has moved')
    .option(
      '--dest-xml <file>',
      'libvirt: the domain’s XML on the destination, as far as it may differ there',
    )
    .addOption(
      new Option('--copy-storage <what>', 'libvirt: copy disks that the hosts do not share')
        .choices(storageCopies)
        .default('none'),
    )
    .option('--json', 'print the report as one JSON object at the end, and nothing else')
    .option('--junit <file>', 'write the report as a JUnit test result, for CI systems')
    .option('--events <file>', 'write every event to a file, one JSON object a line ("-": standard output)');
  addLibvirtOption(addStateDirOption(addConnectionOptions(command)))
    .addOption(
      new Option('--log-level <level>', 'of agents inside this command').choices(logLevels).default('silent'),
    )
    .addHelpText('after', HELP)
    .action(async (guest: string, options: MigrateOptions) => {
      context.exit(await runMigration(guest, options, context));
    });
}
