//! Builds the eBPF object that pinscope embeds, and says which toolchain it was built with.
//!
//! The object is `$OUT_DIR/pinscope-ebpf`. Without an eBPF toolchain it is an empty file, so that user space still
//! builds; pinscope then says at run time that it carries no programs. An error in the eBPF code fails the build.

#[path = "../xtask/src/toolchain.rs"]
#[allow(dead_code, reason = "cargo xtask uses the rest of it")]
mod toolchain;

use object::{
    build::elf::{Builder, SectionData},
    elf,
};
use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// The instruction set of the object. v3 (32-bit jumps and ALU) has been in every kernel since 5.1.
const CPU: &str = "v3";
/// Overrides [`CPU`] for an experiment.
const CPU_ENV: &str = "PINSCOPE_BPF_CPU";
/// The eBPF package's binary, and the name of the object.
const OBJECT: &str = "pinscope-ebpf";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: run by cargo only")?);
    let workspace = fs::canonicalize("..")?;
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=../xtask/src/toolchain.rs");
    for name in [toolchain::LINKER_ENV, CPU_ENV] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    println!("cargo:rustc-env=PINSCOPE_GIT={}", git_revision());

    let object = out.join(OBJECT);
    let compiler = toolchain::find_compiler();
    let linker = toolchain::find_linker();
    let (Some(compiler), Some(linker)) = (&compiler, &linker) else {
        let missing = match (&compiler, &linker) {
            (None, None) => "a Rust compiler with core for BPF, and bpf-linker",
            (None, _) => "a Rust compiler with core for BPF",
            _ => "bpf-linker",
        };
        println!("cargo:warning=no eBPF programs are built in: {missing} is missing; `cargo xtask setup` installs it");
        println!("cargo:rustc-env=PINSCOPE_EBPF_TOOLCHAIN=none ({missing} was missing)");
        // A path that is never there makes cargo ask again at the next build, when it may have been installed.
        println!("cargo:rerun-if-changed={}", out.join("toolchain-was-missing").display());
        return Ok(fs::write(object, [])?);
    };
    for input in ["tracer-ebpf/src", "tracer-ebpf/Cargo.toml", "Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={}", workspace.join(input).display());
    }
    println!("cargo:rerun-if-changed={}", linker.display());

    let target_dir = out.join("ebpf");
    compile(compiler, linker, &workspace, &target_dir)?;
    let built = target_dir.join(toolchain::TARGET).join("release").join(OBJECT);
    let whole = fs::read(&built).map_err(|error| format!("no eBPF object at {}: {error}", built.display()))?;
    fs::write(object, without_dwarf(&whole)?)?;
    println!("cargo:rustc-env=PINSCOPE_EBPF_TOOLCHAIN={}", compiler.describe());
    Ok(())
}

/// Runs the inner cargo; its warnings become this build's, its errors the error.
fn compile(
    compiler: &toolchain::Compiler,
    linker: &Path,
    workspace: &Path,
    target_dir: &Path,
) -> Result<(), Box<dyn Error>> {
    let mut cargo = compiler.cargo();
    cargo
        .arg("build")
        .args(compiler.arguments())
        .args(["--release", "--locked", "--quiet", "--package", "tracer-ebpf", "--bin", OBJECT])
        .args(["--target", toolchain::TARGET])
        .arg("--target-dir")
        .arg(target_dir)
        .current_dir(workspace);
    forget_outer_cargo(&mut cargo);
    let cpu = env::var(CPU_ENV).unwrap_or_else(|_| CPU.to_owned());
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
        .unwrap_or_default();
    let flags = [
        format!("-Clinker={}", linker.display()),
        "-Clink-arg=--btf".to_owned(),
        "-Cdebuginfo=2".to_owned(),
        "-Cpanic=abort".to_owned(),
        format!("-Ctarget-cpu={cpu}"),
        // The object is the same wherever the checkout stands and whoever builds it.
        format!("--remap-path-prefix={}=.", workspace.display()),
        format!("--remap-path-prefix={}=cargo", cargo_home.display()),
    ];
    cargo
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        // One module, linked as a whole by bpf-linker: cargo's own LTO and units only get into its way.
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "2");
    if let Ok(arch) = env::var("CARGO_CFG_TARGET_ARCH") {
        // Whose registers the programs read: the machine that pinscope is built for, not the one that builds it.
        cargo.env("AYA_BPF_TARGET_ARCH", arch);
    }

    let output = cargo.output().map_err(|error| format!("{cargo:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("the eBPF programs did not build ({}):\n{said}", output.status).into());
    }
    for line in said.lines() {
        println!("cargo:warning={line}");
    }
    Ok(())
}

/// Leaves DWARF out, from which BTF has been made: nine tenths of the object, which each start would read and parse.
fn without_dwarf(object: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut builder = Builder::read(object)?;
    for section in &mut builder.sections {
        let name = section.name.to_string();
        section.delete = [".debug_", ".rel.debug_"].iter().any(|prefix| name.starts_with(prefix));
    }
    builder.delete_orphans();
    // LLVM keeps the sections' names among the symbols'; the writer wants a section of their own.
    let names = builder.sections.add();
    names.name = ".shstrtab".into();
    names.sh_type = elf::SHT_STRTAB;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    Ok(stripped)
}

/// Takes from the inner cargo what the outer one meant for itself: its compiler, its flags, its profile, its target.
fn forget_outer_cargo(command: &mut Command) {
    /// What belongs to the user, not to the build under way.
    const KEPT: [&str; 5] = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTRIES_", "CARGO_REGISTRY_"];
    const DROPPED: [&str; 13] = [
        "RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_LINKER",
        "RUSTDOC",
        "RUSTDOCFLAGS",
        "RUSTUP_TOOLCHAIN",
        "MAKEFLAGS",
        "MFLAGS",
        "TARGET",
        "HOST",
        "OUT_DIR",
        "PROFILE",
    ];
    for (name, _) in env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        let cargos = text.starts_with("CARGO") && !KEPT.iter().any(|kept| text.starts_with(kept));
        if cargos || DROPPED.contains(&text) {
            command.env_remove(&name);
        }
    }
    // The compiler sets its own RUSTC where it wants one; an outer one must not shine through.
    if !command.get_envs().any(|(name, value)| name == "RUSTC" && value.is_some()) {
        command.env_remove("RUSTC");
    }
}

/// The commit that a release build was made from. Development builds do without: they would be built anew after
/// every commit.
fn git_revision() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (output.status.success() && !text.is_empty()).then_some(text)
    };
    if env::var("PROFILE").as_deref() != Ok("release") {
        return "development build".to_owned();
    }
    // HEAD names a branch; the branch's own file, or the packed ones, name the commit.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD", "packed-refs"].into_iter().chain(branch.as_deref()) {
        if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "not built from a git checkout".to_owned())
}
