// Writes built/: the standard library byte-compiled, Emscripten's glue, and which Python it is.
import { copyFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { loadPyodide } from "pyodide";
import { compile } from "./compile.mjs";

const PACKAGE = "node_modules/pyodide";
const pyodide = await loadPyodide();
const version = pyodide.runPython("import sys; list(sys.version_info[:3])").toJs();
const zip = `/lib/python${version[0]}${version[1]}.zip`;
writeFileSync("built/stdlib.zip", await compile(pyodide, readFileSync(`${PACKAGE}/python_stdlib.zip`), "library", zip));
const glue = ["pyodide.asm.mjs", "pyodide.asm.js"].find((name) => existsSync(`${PACKAGE}/${name}`));
copyFileSync(`${PACKAGE}/${glue}`, "built/pyodide.asm.mjs");
copyFileSync(`${PACKAGE}/pyodide.asm.wasm`, "built/pyodide.asm.wasm");
writeFileSync("built/python.json", JSON.stringify({ version }));
