/* Preloaded into a process, it lets some of its writes and syncs below $FAIL_FOLDER fail with EIO, as a dying card does:
 * $FAIL_PER_MILLE of a thousand, chosen by $FAIL_SEED. Each failure is one byte at the end of $FAIL_COUNT.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static const char *folder;
static int counted = -1;
static long per_mille;
static unsigned seed;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

__attribute__((constructor)) static void begin(void) {
    const char *rate = getenv("FAIL_PER_MILLE"), *chosen = getenv("FAIL_SEED"), *count = getenv("FAIL_COUNT");
    if (!rate || !chosen || !count) return;
    counted = open(count, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    per_mille = atol(rate);
    seed = (unsigned)atol(chosen);
    folder = getenv("FAIL_FOLDER");
}

static int fails(int fd) {
    char link[64], path[PATH_MAX];
    ssize_t (*write_)(int, const void *, size_t) = real("write");
    int unlucky;
    if (!folder || fd == counted) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    if (strncmp(path, folder, strlen(folder)) != 0 || strstr(path, "-shm")) return 0;
    pthread_mutex_lock(&lock);
    unlucky = rand_r(&seed) % 1000 < per_mille;
    pthread_mutex_unlock(&lock);
    if (!unlucky) return 0;
    if (write_(counted, "x", 1) != 1) abort();
    errno = EIO;
    return 1;
}

#define FAILS(result, name, parameters, arguments) \
    result name parameters { \
        result (*real_) parameters = real(#name); \
        return fails(fd) ? -1 : real_ arguments; \
    }

FAILS(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size))
FAILS(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t where), (fd, data, size, where))
FAILS(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t where), (fd, data, size, where))
FAILS(int, fsync, (int fd), (fd))
FAILS(int, fdatasync, (int fd), (fd))
FAILS(int, ftruncate, (int fd, off_t size), (fd, size))
FAILS(int, ftruncate64, (int fd, off64_t size), (fd, size))
