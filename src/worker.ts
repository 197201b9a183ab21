// Where a worker thread's file is: beside the others in a checkout; in the executable, `bun build
// --compile` puts what modules share into chunks at the top of the embedded folder, and keeps an extra
// entry point (src/build/build.ts) at its place below the project.

/** The address for `new Worker` of a module, whose path below src is given without extension. */
export function workerUrl(path: string): string {
  const isCompiled = import.meta.url.includes("/$bunfs/")
  return new URL(isCompiled ? `./src/${path}.js` : `./${path}.ts`, import.meta.url).href
}
