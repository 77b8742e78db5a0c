/** What a destination agent says to a guest that might come. None does, and nothing is touched. */
import type { GuestDescription } from '@vmferry/engine/guest';
import type { MigrateRequest } from '@vmferry/engine/options';
import { Destination, type DestinationOptions, type OpenAnswer } from './destination.ts';

export interface Question {
  readonly description: GuestDescription;
  readonly request: MigrateRequest;
  readonly postcopy: boolean;
}

/** Rejects with `WireError` or `PeerError`. */
export async function askDestination(
  options: DestinationOptions,
  { description, request, postcopy }: Question,
): Promise<OpenAnswer> {
  const destination = await Destination.connect(options);
  try {
    return await destination.open(description, request, postcopy);
  } finally {
    await destination.close();
  }
}
