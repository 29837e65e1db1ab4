// Job files of fio(1), as far as the runner knows them: sections, [global], ${VARIABLES}, sizes.
// What it does not know is an error that names it; what has no meaning for rings is taken and
// ignored, by a list.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace fs3::usrbio::fio {

struct Job {
  std::string name;
  std::string directory;
  std::string filename;  // empty: directory/NAME.NUMBER.0, as fio names its files
  bool reads = true;
  bool writes = false;
  bool random = false;
  uint32_t percent_reads = 50;  // of a mixed job
  uint64_t block_bytes = 4096;
  uint64_t size_bytes = 0;  // of each file; 0: as it is
  uint64_t io_bytes = 0;    // to transfer; 0: the size
  int depth = 1;
  int jobs = 1;
  double runtime_s = 0;  // 0: no limit
  double ramp_s = 0;
  bool time_based = false;
  bool random_map = true;  // every block once before any twice
  bool end_fsync = false;
  uint64_t fsync_every = 0;  // writes; 0: never
  bool verify = false;       // crc32c of each block, read back when all is written
  bool create = true;        // lay the file out before a job that reads
  int batch = 0;             // submitted together; 0: as slots are free
  int batch_complete_min = 1;
  uint64_t seed = 1;
  bool stonewall = false;
};

struct Settings {
  std::vector<Job> jobs;
  bool json = false;
  std::string output;  // a file; empty: standard output
  std::vector<double> percentiles{1,  5,  10, 20, 30,   40,   50,    60,   70,
                                  80, 90, 95, 99, 99.5, 99.9, 99.95, 99.99};
};

// "4k", "1m", "2G", "10%" not. Throws std::invalid_argument.
uint64_t parse_size(const std::string& text);
double parse_seconds(const std::string& text);

// Command line and job files, as fio takes them. Throws std::invalid_argument with a sentence.
Settings parse(const std::vector<std::string>& arguments);

}  // namespace fs3::usrbio::fio
