/* Preloaded into a process, it writes down what the process does to the files below $TRACE_FOLDER, in order, with the
 * bytes: what a disk would have to do. Read by disk_trace.py, which cuts the power anywhere in between.
 *
 * One entry: kind, length of the name (2), offset (8), length of the data (4), name, data; little endian.
 *   C created   W written   T truncated to offset   S synced   D folder synced   U removed   R renamed to data
 *   L linked as data
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { MOST_FILES = 4096 };

static char *names[MOST_FILES];
static int is_folder[MOST_FILES];
static int trace = -1;
static const char *folder;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

__attribute__((constructor)) static void begin(void) {
    int (*open_)(const char *, int, ...) = real("open");
    folder = getenv("TRACE_FOLDER");
    const char *path = getenv("TRACE_FILE");
    if (folder && path) trace = open_(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int is_ours(const char *path) {
    return trace >= 0 && path && strncmp(path, folder, strlen(folder)) == 0 && !strstr(path, "-shm");
}

static void note(char kind, const char *name, uint64_t offset, const void *data, uint32_t size) {
    ssize_t (*write_)(int, const void *, size_t) = real("write");
    uint16_t length = (uint16_t)strlen(name);
    size_t whole = 15 + length + size;
    char *entry = malloc(whole);
    entry[0] = kind;
    memcpy(entry + 1, &length, 2);
    memcpy(entry + 3, &offset, 8);
    memcpy(entry + 11, &size, 4);
    memcpy(entry + 15, name, length);
    if (size) memcpy(entry + 15 + length, data, size);
    if (write_(trace, entry, whole) != (ssize_t)whole) abort();
    free(entry);
}

/* What is done and that it is written down must not be torn apart by another thread. */
#define WHILE_ALONE(code) do { pthread_mutex_lock(&lock); code; pthread_mutex_unlock(&lock); } while (0)

static void opened(int fd, const char *path, int flags, int existed) {
    if (fd < 0 || fd >= MOST_FILES) return;
    free(names[fd]);
    names[fd] = NULL;
    if (!is_ours(path)) return;
    struct stat about;
    names[fd] = strdup(path);
    is_folder[fd] = fstat(fd, &about) == 0 && S_ISDIR(about.st_mode);
    if (is_folder[fd]) return;
    if (!existed) note('C', path, 0, NULL, 0);
    else if (flags & O_TRUNC) note('T', path, 0, NULL, 0);
}

#define OPENS(type, call) \
    int mode = 0, fd; \
    if (flags & O_CREAT) { va_list more; va_start(more, flags); mode = va_arg(more, int); va_end(more); } \
    type; \
    WHILE_ALONE({ int existed = access(path, F_OK) == 0; fd = call; opened(fd, path, flags, existed); }); \
    return fd;

int open(const char *path, int flags, ...) {
    OPENS(int (*open_)(const char *, int, ...) = real("open"), open_(path, flags, mode))
}
int open64(const char *path, int flags, ...) {
    OPENS(int (*open_)(const char *, int, ...) = real("open64"), open_(path, flags, mode))
}
int openat(int at, const char *path, int flags, ...) {
    OPENS(int (*open_)(int, const char *, int, ...) = real("openat"), open_(at, path, flags, mode))
}
int openat64(int at, const char *path, int flags, ...) {
    OPENS(int (*open_)(int, const char *, int, ...) = real("openat64"), open_(at, path, flags, mode))
}

static const char *name_of(int fd) { return fd >= 0 && fd < MOST_FILES ? names[fd] : NULL; }

int close(int fd) {
    int (*close_)(int) = real("close"), done;
    WHILE_ALONE({
        if (fd >= 0 && fd < MOST_FILES) { free(names[fd]); names[fd] = NULL; }
        done = close_(fd);
    });
    return done;
}

#define WRITES(type, call, offset) \
    type; \
    ssize_t done; \
    if (!name_of(fd)) return call; \
    WHILE_ALONE({ off64_t at = offset; done = call; if (done > 0) note('W', names[fd], (uint64_t)at, data, (uint32_t)done); }); \
    return done;

ssize_t pwrite(int fd, const void *data, size_t size, off_t where) {
    WRITES(ssize_t (*write_)(int, const void *, size_t, off_t) = real("pwrite"), write_(fd, data, size, where), where)
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t where) {
    WRITES(ssize_t (*write_)(int, const void *, size_t, off64_t) = real("pwrite64"), write_(fd, data, size, where), where)
}

static off64_t place(int fd) {
    struct stat about;
    if (fcntl(fd, F_GETFL) & O_APPEND) return fstat(fd, &about) == 0 ? about.st_size : 0;
    return lseek64(fd, 0, SEEK_CUR);
}

ssize_t write(int fd, const void *data, size_t size) {
    WRITES(ssize_t (*write_)(int, const void *, size_t) = real("write"), write_(fd, data, size), place(fd))
}

#define CHANGES(type, call, kind, offset) \
    type; \
    int done; \
    if (!name_of(fd)) return call; \
    WHILE_ALONE({ done = call; if (done == 0) note(kind, names[fd], (uint64_t)(offset), NULL, 0); }); \
    return done;

int fsync(int fd) {
    CHANGES(int (*sync_)(int) = real("fsync"), sync_(fd), is_folder[fd] ? 'D' : 'S', 0)
}
int fdatasync(int fd) {
    CHANGES(int (*sync_)(int) = real("fdatasync"), sync_(fd), is_folder[fd] ? 'D' : 'S', 0)
}
int ftruncate(int fd, off_t size) {
    CHANGES(int (*truncate_)(int, off_t) = real("ftruncate"), truncate_(fd, size), 'T', size)
}
int ftruncate64(int fd, off64_t size) {
    CHANGES(int (*truncate_)(int, off64_t) = real("ftruncate64"), truncate_(fd, size), 'T', size)
}

int unlink(const char *path) {
    int (*unlink_)(const char *) = real("unlink"), done;
    WHILE_ALONE({ done = unlink_(path); if (done == 0 && is_ours(path)) note('U', path, 0, NULL, 0); });
    return done;
}
int rename(const char *from, const char *to) {
    int (*rename_)(const char *, const char *) = real("rename"), done;
    WHILE_ALONE({
        done = rename_(from, to);
        if (done == 0 && is_ours(to)) note('R', from, 0, to, (uint32_t)strlen(to));
        for (int fd = 0; done == 0 && fd < MOST_FILES; fd++)
            if (names[fd] && strcmp(names[fd], from) == 0) { free(names[fd]); names[fd] = strdup(to); }
    });
    return done;
}
int link(const char *from, const char *to) {
    int (*link_)(const char *, const char *) = real("link"), done;
    WHILE_ALONE({ done = link_(from, to); if (done == 0 && is_ours(to)) note('L', from, 0, to, (uint32_t)strlen(to)); });
    return done;
}
