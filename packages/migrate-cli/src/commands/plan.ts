import { compressModes, stallActions, storageCopies } from '@vmferry/engine/options';
import { type Command, Option } from 'commander';
import type { CommandContext } from '../context.ts';
import { agentUrl, duration, rate, wholeNumber } from '../parsers.ts';
import { addConnectionOptions, addLibvirtOption } from '../settings.ts';
import type { PlanOptions } from '../simulation/run-plan.ts';

const HELP = `
Run it on the guest's host. The guest is not touched: its hypervisor is asked what it has and how many pages it
dirties in one second and in five. The link is probed for about half a second. Then every strategy is simulated.
Of a domain of libvirt's both hosts are asked for everything that is in the way of a migration.

Examples:
  vmferry plan qemu:/run/vm/web1.sock --to wss://host2:4447 --ca ca.crt --token-file token
  vmferry plan libvirt:web1 --to wss://host2:4447 --copy-storage all
  vmferry plan qemu:/run/vm/web1.sock --bandwidth 10gbit --latency 0.1ms --max-downtime 100ms`;

export function addPlanCommand(program: Command, context: CommandContext): void {
  const command = program
    .command('plan')
    .description('Says what to expect of moving a guest, and how to move it. Touches nothing.')
    .argument('<guest>', 'qemu:/PATH/TO/QMP.SOCK, libvirt:NAME or sim:NAME')
    .addOption(
      new Option('--to <url>', 'destination agent, to which the link is measured').argParser(agentUrl),
    )
    .addOption(new Option('--bandwidth <rate>', 'of the link, instead of measuring it').argParser(rate))
    .addOption(new Option('--latency <duration>', 'one way, instead of measuring it').argParser(duration))
    .addOption(
      new Option('--max-downtime <duration>', 'how long the guest may stand still')
        .argParser(duration)
        .default(300, '300ms'),
    )
    .addOption(
      new Option('--deadline <duration>', 'when all must be over (default: never)').argParser(duration),
    )
    .addOption(new Option('--max-bandwidth <rate>', 'for all streams (default: no limit)').argParser(rate))
    .addOption(new Option('--streams <n>', 'data streams, 1 to 16').argParser(wholeNumber).default(1))
    .addOption(new Option('--compress <mode>', 'of pages').choices(compressModes).default('auto'))
    .addOption(
      new Option('--on-stall <action>', 'when the guest writes faster than the link carries').choices(
        stallActions,
      ),
    )
    .option('--dest-guest <guest>', 'the guest as the destination names it (default: as the source does)')
    .option('--dest-xml <file>', "libvirt: the domain's XML on the destination")
    .addOption(
      new Option('--copy-storage <what>', 'libvirt: disks that the hosts do not share')
        .choices(storageCopies)
        .default('none'),
    )
    .option('--json', 'print one JSON object and nothing else');
  addLibvirtOption(addConnectionOptions(command))
    .addHelpText('after', HELP)
    .action(async (guest: string, options: PlanOptions) => {
      const { runPlan } = await import('../simulation/run-plan.ts');
      context.exit(await runPlan(guest, options, context));
    });
}
