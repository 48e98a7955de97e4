//! What both sides of pinscope share; see `abi`.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(test)]
extern crate std;

mod abi;

pub use abi::*;
