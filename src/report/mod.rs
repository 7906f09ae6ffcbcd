//! Units and journals into tables and files.
