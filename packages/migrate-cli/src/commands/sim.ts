import { strategies } from '@vmferry/engine/options';
import { type Command, Option } from 'commander';
import type { CommandContext } from '../context.ts';
import { wholeNumber } from '../parsers.ts';
import type { SimOptions } from '../simulation/run-sim.ts';

const HELP = `
A scenario is a YAML file: a guest (of the library, from a file, or written there), a link, what hosts take, a
strategy with its goals. docs/memsim.md has all keys. No guest is started and nothing is sent: a migration of
64 GiB is simulated in some milliseconds, with the policy that moves real guests.

A sweep crosses strategies, guests, links and sizes, on all cores, and writes NAME.json, NAME.csv and NAME.html,
a page with plots that needs no network.

Exit status: as of a migration; 1 also where a figure is not what the scenario expects.

Examples:
  vmferry sim web-to-host2.yaml
  vmferry sim web-to-host2.yaml --compare
  vmferry sim --sweep all-links.yaml --out report/all-links`;

export function addSimCommand(program: Command, context: CommandContext): void {
  program
    .command('sim')
    .description('Simulates a migration in virtual time: what would it take?')
    .argument('[scenario]', 'a scenario file')
    .addOption(new Option('--strategy <strategy>', 'instead of that of the scenario').choices(strategies))
    .option('--compare', 'simulate every strategy and say which to choose')
    .option('--sweep <file>', 'simulate all that a sweep file crosses')
    .option('--out <prefix>', 'where a sweep writes its files (default: as its file is called, here)')
    .addOption(
      new Option('--threads <n>', 'for a sweep (default: one for each core; at most four)').argParser(
        wholeNumber,
      ),
    )
    .option('--json', 'print one JSON object and nothing else')
    .addHelpText('after', HELP)
    .action(async (scenario: string | undefined, options: SimOptions) => {
      const { runSim } = await import('../simulation/run-sim.ts');
      context.exit(await runSim(scenario, options, context));
    });
}
