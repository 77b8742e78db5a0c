/** Rows of text as columns. */

/** With a line break at its end. Columns from `figuresFrom` on are set to the right. */
export function renderColumns(rows: readonly (readonly string[])[], figuresFrom: number): string {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((cells) => cells[column]?.length ?? 0)),
  );
  return rows
    .map((cells) =>
      cells.map((cell, column) =>
        column < figuresFrom ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0),
      ),
    )
    .map((cells) => `${cells.join('  ').trimEnd()}\n`)
    .join('');
}
