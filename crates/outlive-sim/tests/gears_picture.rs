//! The gears as a device draws them: looked at by numbers here, and by a person in the file that the test names.
