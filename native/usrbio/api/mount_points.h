// Which mount a path lies in, as 3FS's clients find it: by /proc/self/mountinfo and 3fs-virt.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fs3::usrbio {

// The candidates that a text of proc(5) mountinfo names, longest first: mounts of type fuse.hf3fs
// or fuse.fs3 (`any_type`: of every type). A mount of the directory 3fs-virt alone, as containers
// make it, stands for the directory that it lies in.
std::vector<std::string> mount_candidates(std::string_view mountinfo, bool any_type);

bool lies_in(std::string_view path, std::string_view mount_point);

// The mount of an existing path, without a slash at its end; empty when there is none.
std::string find_mount_point(const char* path);

}  // namespace fs3::usrbio
