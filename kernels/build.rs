//! Compiles the GPU's kernels: by nvcc for the feature `cuda`, else by the C++ compiler for `emulated-gpu`. Without
//! these features it does nothing.

#[cfg(feature = "cuda")]
#[path = "build/cuda.rs"]
mod cuda;

/// Sources of both libraries, under `cuda/`.
#[cfg(any(feature = "cuda", feature = "emulated-gpu"))]
const KERNELS: [&str; 8] = [
    "attention.cu",
    "gather.cu",
    "merge.cu",
    "narrow.cu",
    "norm.cu",
    "rope.cu",
    "sample.cu",
    "swiglu.cu",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(any(feature = "cuda", feature = "emulated-gpu"))]
    println!("cargo:rerun-if-changed=cuda");
    #[cfg(feature = "cuda")]
    cuda::build(&KERNELS);
    #[cfg(all(feature = "emulated-gpu", not(feature = "cuda")))]
    build_emulated();
}

/// The kernels as plain C++, always optimised: they run thread by thread.
#[cfg(all(feature = "emulated-gpu", not(feature = "cuda")))]
fn build_emulated() {
    let sources = KERNELS.iter().chain(&["emulation.cpp", "runtime_emulated.cpp"]);
    let mut compiler = cc::Build::new();
    // nvcc fuses products and sums wherever it can, which can show in results; so should this.
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("fma") {
        compiler.flag("-mfma").flag("-ffp-contract=fast");
    }
    compiler
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .warnings(true)
        .extra_warnings(true)
        .flag("-Wno-unknown-pragmas")
        .flag("-xc++")
        .files(sources.map(|name| format!("cuda/{name}")))
        .compile("longreward_gpu_emulated");
}
