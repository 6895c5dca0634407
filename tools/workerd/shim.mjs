// Boots CPython inside a workerd isolate and turns the Python classes of entry.py into Worker and Durable Object
// classes, with the calling conventions of Cloudflare's Python Workers: the same entry.py runs here and there.
//
// All of it happens while the worker starts. Only then does workerd allow code generation, which Pyodide needs for its
// trampolines; the wasm module comes in compiled, through Emscripten's own hook, since compiling bytes is forbidden.
import * as cloudflareWorkersModule from "cloudflare:workers";
import * as cloudflareSocketsModule from "cloudflare:sockets";
import * as glue from "pyodide.asm.mjs";
import wasm from "pyodide.asm.wasm";
import stdlib from "stdlib.zip";
import python from "python.json";
import app from "app.zip";

const HOME = "/session/metadata"; // where Cloudflare mounts a worker's files
const [MAJOR, MINOR] = python.version;
const LIB = `/lib/python${MAJOR}.${MINOR}`;
const ERROR_MARK = Symbol("error");
const ENOSYS = 52;
const began = performance.now();
let starting = true;

function files(module) {
  const { FS } = module;
  for (const folder of [`${LIB}/site-packages`, `${LIB}/lib-dynload`, HOME]) FS.mkdirTree(folder);
  FS.writeFile(`/lib/python${MAJOR}${MINOR}.zip`, new Uint8Array(stdlib), { canOwn: true });
  FS.writeFile("/app.zip", new Uint8Array(app), { canOwn: true });
  FS.chdir(HOME);
  module.API.sitePackages = `${LIB}/site-packages`;
  module.API.pyVersionTuple = python.version;
  // There is no entropy while a worker starts: no hash randomisation, as on Cloudflare.
  Object.assign(module.ENV, { HOME: "/session", PYTHONHASHSEED: "111", PYTHONDONTWRITEBYTECODE: "1" });
}

function instantiateWasm(imports, done) {
  const wasi = imports.wasi_snapshot_preview1;
  const entropy = wasi.random_get;
  // Refused with an error number os.urandom raises OSError; what workerd would throw through C is fatal.
  wasi.random_get = (at, size) => (starting ? ENOSYS : entropy(at, size));
  const make = () => ERROR_MARK;
  const is = (value) => value === ERROR_MARK;
  Object.assign(imports.env, { Jsv_GetError_import: make, JsvError_Check: is }); // Pyodide 314
  imports.sentinel = { create_sentinel: make, is_sentinel: is }; // Pyodide 0.28
  const instance = new WebAssembly.Instance(wasm, imports);
  done(instance, wasm);
  return instance.exports;
}

async function boot() {
  const API = {
    runtimeEnv: { IN_WORKERD: true, IN_BROWSER: true, IN_BROWSER_WEB_WORKER: true, IN_NODE: false },
    config: {
      jsglobals: globalThis, enableRunUntilComplete: true, env: {}, args: [], packages: [],
      indexURL: "/", cdnUrl: "/", packageBaseUrl: "/", packageCacheDir: "/",
    },
  };
  // With a `process` in sight Emscripten takes workerd for Node; a browser it knows.
  const { process } = globalThis;
  const browser = { window: globalThis, document: { createElement() {} }, sessionStorage: {}, location: { href: "file:///" } };
  delete globalThis.process;
  Object.assign(globalThis, browser);
  try {
    const create = glue.default ?? globalThis._createPyodideModule;
    await create({
      API, preRun: [files], instantiateWasm, arguments: [],
      print: (line) => console.log(line), printErr: (line) => console.error(line),
    });
    return API.finalizeBootstrap();
  } finally {
    for (const name of Object.keys(browser)) delete globalThis[name];
    globalThis.process = process;
  }
}

const pyodide = await boot();
const booted = performance.now();
pyodide.registerJsModule("_pyodide_entrypoint_helper", {
  cloudflareWorkersModule,
  cloudflareSocketsModule,
  doAnImport: (name) => import(name),
  patchWaitUntil: () => {},
});
pyodide.registerJsModule("_cloudflare_compat_flags", { python_request_headers_preserve_commas: true });
const bridge = pyodide.runPython(`
import sys, zipfile
with zipfile.ZipFile("/app.zip") as archive:
    archive.extractall("${HOME}")
sys.path[:0] = ["${HOME}", "${HOME}/python_modules"]

import random
from inspect import isawaitable
from types import FunctionType, SimpleNamespace

import entry
from pyodide.code import relaxed_call
from workers import python_from_rpc, python_to_rpc

AS_THEY_ARE = ("fetch", "queue", "scheduled", "alarm")

def methods(cls):
    return [name for name in dir(cls) if name[0] != "_" and isinstance(getattr(cls, name), FunctionType)]

async def call(instance, name, *args):
    function = getattr(instance, name)
    if name == "fetch":
        result = relaxed_call(function, python_from_rpc(args[0]), *args[1:])
    elif name in AS_THEY_ARE:
        result = relaxed_call(function, *args)
    else:
        result = function(*map(python_from_rpc, args))
    return python_to_rpc(await result if isawaitable(result) else result)

SimpleNamespace(methods=methods, call=call, entry=entry, reseed=random.seed)
`);
export const startup = { python: booted - began, entry: performance.now() - booted };

function leaveStartup() {
  if (starting) {
    starting = false;
    bridge.reseed();
  }
}

function wrap(base, name) {
  const pythonClass = bridge.entry[name];
  const wrapper = class extends base {
    constructor(ctx, env) {
      super(ctx, env);
      leaveStartup();
      this.instance = pythonClass.callWithOptions({ promising: true }, ctx, env);
    }
  };
  for (const method of bridge.methods(pythonClass)) {
    wrapper.prototype[method] = async function (...args) {
      return bridge.call.callWithOptions({ promising: true }, await this.instance, method, ...args);
    };
  }
  return wrapper;
}

export const durableObject = (name) => wrap(cloudflareWorkersModule.DurableObject, name);
export const workerEntrypoint = (name) => wrap(cloudflareWorkersModule.WorkerEntrypoint, name);
