/** What a link needs of its transport: the part of a `ws` WebSocket that it uses, and what a lane adds. */
export interface FrameSocket {
  send(
    data: Uint8Array,
    options: { binary: boolean; compress: boolean },
    done: (error?: Error) => void,
  ): void;
  ping(): void;
  close(code?: number, reason?: string): void;
  terminate(): void;
  on(event: 'message', listener: (data: Buffer | ArrayBuffer | Buffer[], isBinary: boolean) => void): unknown;
  on(event: 'ping' | 'pong', listener: (data: Buffer) => void): unknown;
  on(event: 'error', listener: (error: Error) => void): unknown;
  on(event: 'close', listener: (code: number, reason: Buffer) => void): unknown;
  /**
   * A socket that has it lends its messages: each is due back, once, and is not to be looked at after that.
   * When too many are out, nothing more is received.
   */
  recycle?(message: Uint8Array): void;
  /** Nothing is received because of that; the peer's silence then says nothing. */
  readonly stalled?: boolean;
}
