// Runs pytest under Pyodide in Node: CPython in WebAssembly, no thread, no socket, no process.
//
//   node pytest.mjs <folder of the component> <root of the repository> <plugin module> [arguments of pytest ...]
import { pathToFileURL } from "node:url";

const [component, root, plugin, ...args] = process.argv.slice(2);
const { loadPyodide } = await import(pathToFileURL(`${component}/node_modules/pyodide/pyodide.mjs`));
const pyodide = await loadPyodide({ env: { HOME: "/tmp", PYTHONDONTWRITEBYTECODE: "1", TERM: "dumb" } });
for (const [at, folder] of [["/repository", root], ["/component", component]]) {
  pyodide.FS.mkdirTree(at);
  pyodide.FS.mount(pyodide.FS.filesystems.NODEFS, { root: folder }, at);
}
pyodide.globals.set("arguments", pyodide.toPy(["-p", plugin, ...args]));
process.exitCode = pyodide.runPython(`
import os, sys
sys.path[:0] = ["/repository", "/repository/core", "/repository/adapters/cloudflare", "/component/test_packages", "/component/packages"]
os.chdir("/repository")
import pytest
int(pytest.main(list(arguments)))
`);
