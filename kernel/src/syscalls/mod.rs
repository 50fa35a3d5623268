//! syscalls
mod args;
mod result;
pub use args::FromReg;
pub use result::{IntoSysResult, RetValue, SysError, SysResult};
