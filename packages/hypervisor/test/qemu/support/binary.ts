/** The QEMU under test: another than the installed one where the environment names it, as for the rig of `test/`. */
export const QEMU = process.env['VMFERRY_QEMU_A'] || 'qemu-system-x86_64';
