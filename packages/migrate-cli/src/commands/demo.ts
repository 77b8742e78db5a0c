import { type Command, Option } from 'commander';
import type { CommandContext } from '../context.ts';
import { type DemoOptions, runDemo } from '../demo/demo.ts';

export function addDemoCommand(program: Command, context: CommandContext): void {
  program
    .command('demo')
    .description('Moves a small guest between two agents on this host, and shows what happens.')
    .addOption(
      new Option('--backend <backend>', 'what runs the guest')
        .choices(['auto', 'qemu', 'sim'])
        .default('auto'),
    )
    .option('--report <file.html>', 'write a report to look at in a browser')
    .action(async (options: Omit<DemoOptions, 'io'>) => {
      context.exit(await runDemo({ ...options, io: context.io }));
    });
}
