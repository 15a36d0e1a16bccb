//! Compiles the kernels with nvcc, side by side, into one library.
//!
//! * nvcc is looked for in `CUDA_HOME`, `CUDA_PATH`, on the `PATH`, in `/usr/local/cuda` and where
//!   `scripts/cuda_toolkit.py` puts one.
//! * `CUDA_COMPUTE_CAPS` names the devices: `80,86,89,90a` unless it is set. Fewer compile faster. The first is kept
//!   as PTX as well, for devices that are newer than this list.
//! * What the compiler said of registers, spills and shared memory is in `OUT_DIR/*.ptxas.txt`.

use std::collections::VecDeque;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

const DEFAULT_CAPS: &str = "80,86,89,90a";

pub fn build(kernels: &[&str]) {
    for name in ["CUDA_HOME", "CUDA_PATH", "CUDA_COMPUTE_CAPS", "LONGREWARD_CUDA_TOOLKIT", "PATH"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    println!("cargo:rerun-if-changed=build/cuda.rs");
    let toolkit = toolkit();
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let flags = flags(&toolkit);
    let mut sources: VecDeque<&str> = kernels.iter().copied().collect();
    sources.push_back("gemm_cuda.cu");
    sources.push_back("runtime_cuda.cu");
    let objects = compile_all(&toolkit, sources, &flags, &out);
    archive(&toolkit, &objects, &out);
    println!("cargo:rustc-link-search=native={}", out.display());
    println!("cargo:rustc-link-search=native={}", toolkit.join("lib64").display());
    println!("cargo:rustc-link-lib=static=longreward_gpu");
    println!("cargo:rustc-link-lib=static=cudart_static");
    for library in ["stdc++", "dl", "rt", "pthread"] {
        println!("cargo:rustc-link-lib=dylib={library}");
    }
}

/// The folder above `bin/nvcc`.
fn toolkit() -> PathBuf {
    let places = candidates();
    let is_toolkit = |place: &&PathBuf| place.join("bin/nvcc").is_file();
    places.iter().find(is_toolkit).cloned().unwrap_or_else(|| {
        let list: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
        panic!(
            "the feature `cuda` needs nvcc, and there is none in {}. Set CUDA_HOME, or run scripts/cuda_toolkit.py, \
             which fetches a toolkit from PyPI into the user's cache.",
            list.join(", ")
        )
    })
}

fn candidates() -> Vec<PathBuf> {
    let named = |name| env::var_os(name).map(PathBuf::from);
    let mut places: Vec<PathBuf> =
        ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(named).collect();
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).filter(|folder| folder.join("nvcc").is_file());
    places.extend(
        on_path.filter_map(|folder| folder.canonicalize().ok()?.parent().map(Path::to_path_buf)),
    );
    places.push("/usr/local/cuda".into());
    let cache = named("XDG_CACHE_HOME").or_else(|| named("HOME").map(|home| home.join(".cache")));
    places.extend(named("LONGREWARD_CUDA_TOOLKIT"));
    places.extend(cache.map(|cache| cache.join("longreward/cuda-13.0")));
    places
}

fn flags(toolkit: &Path) -> Vec<String> {
    let caps = env::var("CUDA_COMPUTE_CAPS").unwrap_or_else(|_| DEFAULT_CAPS.into());
    let caps: Vec<&str> = caps.split(',').map(str::trim).filter(|cap| !cap.is_empty()).collect();
    let mut flags: Vec<String> =
        caps.iter().map(|cap| format!("-gencode=arch=compute_{cap},code=sm_{cap}")).collect();
    let first = caps.first().expect("CUDA_COMPUTE_CAPS names no device").trim_end_matches('a');
    flags.push(format!("-gencode=arch=compute_{first},code=compute_{first}"));
    flags.push(format!("-I{}", toolkit.join("include").display()));
    let fixed = [
        "-O3",
        "-std=c++17",
        "-Xcompiler=-fPIC,-Wall,-Wextra,-Wno-unknown-pragmas",
        "-Xptxas=-v",
        "--expt-relaxed-constexpr",
        "--threads=2",
    ];
    flags.extend(fixed.map(String::from));
    flags.push(format!("-DLR_CAPABILITIES=\"{}\"", caps.join(",")));
    flags.push(format!("-DLR_HAS_WGMMA={}", u8::from(caps.contains(&"90a"))));
    flags
}

/// As many compilers at once as cargo allows.
fn compile_all(
    toolkit: &Path,
    sources: VecDeque<&str>,
    flags: &[String],
    out: &Path,
) -> Vec<PathBuf> {
    let jobs = env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    let (queue, objects) = (Mutex::new(sources), Mutex::new(Vec::new()));
    let next = || queue.lock().expect("no compiler panics with the queue").pop_front();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(source) = next() {
                    let object = compile(toolkit, source, flags, out);
                    objects.lock().expect("as above").push(object);
                }
            });
        }
    });
    let mut objects = objects.into_inner().expect("all threads are done");
    objects.sort();
    objects
}

fn compile(toolkit: &Path, source: &str, flags: &[String], out: &Path) -> PathBuf {
    let object = out.join(source).with_extension("o");
    let mut nvcc = Command::new(toolkit.join("bin/nvcc"));
    nvcc.args(flags).arg("-c").arg(Path::new("cuda").join(source)).arg("-o").arg(&object);
    let output =
        nvcc.output().unwrap_or_else(|error| panic!("nvcc of {}: {error}", toolkit.display()));
    let said = String::from_utf8_lossy(&output.stderr);
    std::fs::write(out.join(source).with_extension("ptxas.txt"), said.as_bytes())
        .expect("OUT_DIR can be written");
    assert!(output.status.success(), "nvcc failed: {nvcc:?}\n{said}");
    for line in said.lines().filter(|line| line.contains("warning") || line.contains("error")) {
        println!("cargo:warning={source}: {line}");
    }
    object
}

fn archive(toolkit: &Path, objects: &[PathBuf], out: &Path) {
    let library = out.join("liblongreward_gpu.a");
    let _ = std::fs::remove_file(&library);
    let status = Command::new(toolkit.join("bin/nvcc"))
        .arg("--lib")
        .arg("-o")
        .arg(&library)
        .args(objects)
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "nvcc could not make {}",
        library.display()
    );
}
