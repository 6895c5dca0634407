// Byte-compiles the Python files of a zip archive with the CPython that will run them.
//
//   node compile.mjs in.zip out.zip library /lib/python314.zip    x.py becomes x.pyc: a zip to import from
//   node compile.mjs in.zip out.zip cache /session/metadata       x.py stays, its code goes to __pycache__ beside it
import { readFileSync, realpathSync, writeFileSync } from "node:fs";
import { loadPyodide } from "pyodide";

const SCRIPT = `
import sys, zipfile
from importlib._bootstrap_external import _code_to_hash_pyc, _code_to_timestamp_pyc

def compiled(source, target, how, root):
    with zipfile.ZipFile(source) as given, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as made:
        for name in given.namelist():
            if name.endswith("/"):
                continue
            data = given.read(name)
            if how == "cache" or not name.endswith(".py"):
                made.writestr(zipfile.ZipInfo(name), data)
            if name.endswith(".py"):
                code = compile(data, f"{root}/{name}", "exec", dont_inherit=True)
                if how == "library":
                    made.writestr(zipfile.ZipInfo(name + "c"), _code_to_timestamp_pyc(code))
                else:
                    folder, _, file = name.rpartition("/")
                    cached = f"{folder}/__pycache__/{file[:-3]}.{sys.implementation.cache_tag}.pyc".lstrip("/")
                    # An unchecked hash: whatever time of change the file shows, this is its code.
                    made.writestr(zipfile.ZipInfo(cached), _code_to_hash_pyc(code, b"\\0" * 8, False))
`;

export async function compile(pyodide, source, how, root) {
  pyodide.FS.writeFile("/in.zip", source);
  pyodide.runPython(SCRIPT);
  pyodide.globals.get("compiled")("/in.zip", "/out.zip", how, root);
  return pyodide.FS.readFile("/out.zip");
}

if (realpathSync(process.argv[1]) === import.meta.filename) {
  const [from, to, how, root] = process.argv.slice(2);
  writeFileSync(to, await compile(await loadPyodide(), readFileSync(from), how, root));
}
