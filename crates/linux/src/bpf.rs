//! The one kind of program we give to the kernel: which devices a version 2
//! control group may use.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;

/// Instructions used here: load a word of the context, and/shift/move, jump if not equal, exit.
mod code {
    pub(super) const LOAD: u8 = 0x61;
    pub(super) const AND: u8 = 0x54;
    pub(super) const SHIFT_RIGHT: u8 = 0x74;
    pub(super) const MOVE_REGISTER: u8 = 0xbc;
    pub(super) const MOVE: u8 = 0xb7;
    pub(super) const JUMP_NOT: u8 = 0x55;
    pub(super) const JUMP_NOT_REGISTER: u8 = 0x5d;
    pub(super) const EXIT: u8 = 0x95;
}

/// Registers: the result, the context (later scratch), and what the context told.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// A use that is allowed; what is `None` may be anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceUse {
    pub block: bool,
    /// Bits: 1 to make nodes, 2 to read, 4 to write.
    pub access: i32,
    pub major: Option<i32>,
    pub minor: Option<i32>,
}

/// One instruction as the kernel reads it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    value: i32,
}

fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> Instruction {
    Instruction {
        code,
        registers: to | from << 4,
        offset,
        value,
    }
}

/// Denies every use of a device in the cgroup that none of `allowed` allows.
pub fn filter_devices(cgroup: BorrowedFd<'_>, allowed: &[DeviceUse]) -> io::Result<()> {
    let program = load(&assemble(allowed))?;
    let mut attributes = [0u32; 32];
    attributes[0] = u32::try_from(cgroup.as_raw_fd()).map_err(io::Error::other)?;
    attributes[1] = u32::try_from(program.as_fd().as_raw_fd()).map_err(io::Error::other)?;
    attributes[2] = ATTACH_CGROUP_DEVICE;
    attributes[3] = ALLOW_MULTI;
    call(PROG_ATTACH, &attributes).map(drop)
}

fn assemble(allowed: &[DeviceUse]) -> Vec<Instruction> {
    let mut program = vec![
        instruction(code::LOAD, KIND, CONTEXT, 0, 0),
        instruction(code::AND, KIND, 0, 0, 0xffff),
        instruction(code::LOAD, ACCESS, CONTEXT, 0, 0),
        instruction(code::SHIFT_RIGHT, ACCESS, 0, 0, 16),
        instruction(code::LOAD, MAJOR, CONTEXT, 4, 0),
        instruction(code::LOAD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in allowed {
        let mut tests = vec![(KIND, if rule.block { 1 } else { 2 })];
        tests.extend(rule.major.map(|major| (MAJOR, major)));
        tests.extend(rule.minor.map(|minor| (MINOR, minor)));
        // After each test: the remaining tests, three for the access, two for the answer.
        let mut left = i16::try_from(tests.len()).unwrap_or(0) - 1 + 3 + 2;
        for (register, value) in tests {
            program.push(instruction(code::JUMP_NOT, register, 0, left, value));
            left -= 1;
        }
        // Every bit asked for must be among those allowed.
        program.push(instruction(code::MOVE_REGISTER, CONTEXT, ACCESS, 0, 0));
        program.push(instruction(code::AND, CONTEXT, 0, 0, rule.access));
        program.push(instruction(code::JUMP_NOT_REGISTER, CONTEXT, ACCESS, 2, 0));
        program.push(instruction(code::MOVE, RESULT, 0, 0, 1));
        program.push(instruction(code::EXIT, 0, 0, 0, 0));
    }
    program.push(instruction(code::MOVE, RESULT, 0, 0, 0));
    program.push(instruction(code::EXIT, 0, 0, 0, 0));
    program
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let mut attributes = [0u32; 32];
    attributes[0] = PROG_TYPE_CGROUP_DEVICE;
    attributes[1] = u32::try_from(program.len()).map_err(io::Error::other)?;
    put_pointer(&mut attributes, 2, program.as_ptr().cast());
    put_pointer(&mut attributes, 4, c"Apache-2.0".as_ptr().cast());
    let fd = call(PROG_LOAD, &attributes)?;
    // SAFETY: the kernel returned a fresh descriptor of the program.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn put_pointer(attributes: &mut [u32; 32], at: usize, pointer: *const u8) {
    let bytes = (pointer as u64).to_ne_bytes();
    let [a, b, c, d, e, f, g, h] = bytes;
    attributes[at] = u32::from_ne_bytes([a, b, c, d]);
    attributes[at + 1] = u32::from_ne_bytes([e, f, g, h]);
}

fn call(command: libc::c_int, attributes: &[u32; 32]) -> io::Result<i32> {
    // SAFETY: the attributes, and the program and text they point to, outlive the call; the kernel
    // verifies the program before it may ever run.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_ptr(),
            size_of_val(attributes),
        )
    };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifier_accepts_the_program() {
        let uses = [
            DeviceUse {
                block: false,
                access: 7,
                major: Some(1),
                minor: Some(3),
            },
            DeviceUse {
                block: true,
                access: 1,
                major: None,
                minor: None,
            },
            DeviceUse {
                block: false,
                access: 6,
                major: Some(136),
                minor: None,
            },
        ];
        assert_eq!(assemble(&uses).len(), 6 + 8 + 6 + 7 + 2);
        match load(&assemble(&uses)) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}"),
        }
    }
}
