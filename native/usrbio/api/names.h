// What is named in shared memory and in 3fs-virt/iovs, as the program sees it.
//
// Thread safety: free functions from any thread. Errors are negative errnos, as the ABI has them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace fs3::usrbio {

constexpr const char* kShmDirectory = "/dev/shm/";

std::string uuid_text(const uint8_t id[16]);
// 16 random bytes in the form of a version 4 UUID.
void new_uuid(uint8_t id[16]);

// 3fs-virt/iovs of a mount, as a descriptor for names in it.
int open_iovs(const char* mount_point);

// Symlink `name` -> `target` in it: registers. 0 or -errno.
int add_name(int iovs, const std::string& name, const std::string& target);
// Waits for I/Os that use it.
void remove_name(int iovs, const std::string& name);

// A new file in /dev/shm, `size` bytes of it allocated, so that using it cannot fail. A descriptor
// or -errno.
int make_shared_file(const std::string& name, size_t size);
// The whole file, mapped; nullptr: errno says why.
void* map_shared(int fd, size_t size, int numa);

}  // namespace fs3::usrbio
