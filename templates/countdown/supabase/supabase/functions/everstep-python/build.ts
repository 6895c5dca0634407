// Byte-compiles what the function loads, by the CPython that will load it: build/app.zip, from a folder that holds
// Everstep and your modules, and once for each Pyodide build/python-<version>.zip, its standard library.
//
//   deno run -A build.ts <folder>
import { loadPyodide, version } from "pyodide";

// Stored, since inflating costs CPU at each start; with an unchecked hash, since an archive's times mean nothing.
const SCRIPT = `
import importlib.util, marshal, zipfile

def compiled(files, root, target):
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as made:
        for name, data in files:
            if name.endswith(".py"):
                code = compile(data, f"{root}/{name}", "exec", dont_inherit=True)
                data = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8) + marshal.dumps(code)
                name += "c"
            made.writestr(zipfile.ZipInfo(name), data)

def of_archive(path, target):
    with zipfile.ZipFile(path) as given:
        compiled([(name, given.read(name)) for name in given.namelist() if not name.endswith("/")], path, target)

def of_files(files, root, target):
    compiled([(name, data.to_bytes()) for name, data in files], root, target)
`;

async function* walk(folder: string, inner = ""): AsyncGenerator<[string, Uint8Array]> {
  for await (const entry of Deno.readDir(`${folder}/${inner}`)) {
    const name = inner + entry.name;
    if (entry.isDirectory && entry.name !== "__pycache__") yield* walk(folder, `${name}/`);
    else if (entry.isFile) yield [name, await Deno.readFile(`${folder}/${name}`)];
  }
}

const here = new URL("./build/", import.meta.url).pathname;
await Deno.mkdir(here, { recursive: true });
const library = `${here}python-${version}.zip`;
const have = await Deno.stat(library).then(() => true, () => false);
const pyodide = await loadPyodide(have ? { stdLibURL: library } : {});
pyodide.runPython(SCRIPT);
if (!have) {
  const [major, minor] = pyodide.runPython("import sys; list(sys.version_info[:2])").toJs();
  pyodide.globals.get("of_archive")(`/lib/python${major}${minor}.zip`, "/library.zip");
  await Deno.writeFile(library, pyodide.FS.readFile("/library.zip"));
}
if (Deno.args[0]) {
  pyodide.globals.get("of_files")(await Array.fromAsync(walk(Deno.args[0])), "/app.zip", "/app.zip");
  await Deno.writeFile(`${here}app.zip`, pyodide.FS.readFile("/app.zip"));
}
