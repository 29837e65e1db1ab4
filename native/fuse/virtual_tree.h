// The names of a mount that are not in the cluster: 3fs-virt in its root, as tools written for 3FS
// expect it. It is found by name and not listed.
//
//   3fs-virt/         0555
//     iovs/           0777; what programs register for USRBIO (usrbio/server.h):
//       ln -s /dev/shm/NAME 3fs-virt/iovs/UUID     shared memory; gone with rm, or its process
//     rm-rf/          0777; removes what is moved or linked into it, trees at once:
//       ln -s /MOUNT/a/b 3fs-virt/rm-rf/ANY    removes /MOUNT/a/b; there is no link afterwards
//       mv /MOUNT/a/b 3fs-virt/rm-rf/          the same
//
// Node ids have the top four bits set, which no inode has; the directories have 3FS's own.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace fs3::fuse::virtual_tree {

constexpr uint64_t kTop = 0xfffffffffffffffe;     // 3fs-virt
constexpr uint64_t kRemove = 0xfffffffffffffffd;  // 3fs-virt/rm-rf
// What stands for a link that was made and is gone: nothing can be done with it.
constexpr uint64_t kGone = 0xfffffffffffffffc;
constexpr uint64_t kIovs = 0xffffffff80000000;  // 3fs-virt/iovs
constexpr uint64_t kIovFirst = kIovs - 65'535;  // the name of number 0, then downwards
constexpr std::string_view kTopName = "3fs-virt";
constexpr std::string_view kRemoveName = "rm-rf";
constexpr std::string_view kIovsName = "iovs";

constexpr bool is_virtual(uint64_t node) { return node >> 60 == 0xf; }
constexpr bool is_iov(uint64_t node) { return is_virtual(node) && node <= kIovFirst; }

// The path below the mount that an absolute path of a program names, without a leading slash; none
// when it does not lie there. The mount itself is the empty path.
std::optional<std::string_view> path_below(std::string_view mountpoint, std::string_view path);

}  // namespace fs3::fuse::virtual_tree
