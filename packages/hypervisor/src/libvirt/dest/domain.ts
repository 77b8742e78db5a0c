/** The domain that enters, on this host's libvirtd, which may be restarted meanwhile: `reach` finds the next one. */
import type { LibvirtConnection } from '@vmferry/native/libvirt/connection';
import type { Domain } from '@vmferry/native/libvirt/domain';
import type { DomainState } from '@vmferry/native/libvirt/states';
import { letGo } from '../answer.ts';
import { reconnect } from '../reconnect.ts';

export class DestDomain {
  readonly name: string;
  readonly #uri: string;
  #connection: LibvirtConnection;
  #uuid: string | undefined;

  constructor(connection: LibvirtConnection, name: string, uri: string) {
    this.#connection = connection;
    this.name = name;
    this.#uri = uri;
  }

  /** Another one after `reach`. */
  get connection(): LibvirtConnection {
    return this.#connection;
  }

  /** Undefined until the source has described it. */
  get uuid(): string | undefined {
    return this.#uuid;
  }

  described(uuid: string): void {
    this.#uuid = uuid;
  }

  /** A libvirtd that was restarted ends what was coming in. */
  async reach(): Promise<void> {
    const connection = await reconnect(this.#uri);
    void this.#connection.close().catch(() => {});
    this.#connection = connection;
  }

  /** @throws LibvirtError VIR_ERR_NO_DOMAIN until libvirt has begun to take it in, and once it is gone */
  handle(): Promise<Domain> {
    return this.#connection.domainByUuid(this.#uuid!);
  }

  readonly state = async (): Promise<DomainState> => await (await this.handle()).state();

  async close(): Promise<void> {
    await letGo(this.#connection.close());
  }
}
