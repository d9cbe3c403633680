/* A disk that refuses: every write below BAD_DISK_FOLDER fails with the errno that stands in the file BAD_DISK_ERRNO,
   as long as that file is there. Loaded with LD_PRELOAD into the gateway. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int is_below(const char *path) {
    const char *folder = getenv("BAD_DISK_FOLDER");
    char whole[PATH_MAX];
    if (!folder || !path) return 0;
    if (path[0] != '/') {
        char here[PATH_MAX];
        if (!getcwd(here, sizeof here)) return 0;
        if (snprintf(whole, sizeof whole, "%s/%s", here, path) >= (int)sizeof whole) return 0;
        path = whole;
    }
    size_t length = strlen(folder);
    return strncmp(path, folder, length) == 0 && (path[length] == '/' || path[length] == 0);
}

/* The errno to answer with, 0 while the disk is well. */
static int refused(void) {
    static int (*real_open)(const char *, int, ...);
    const char *place = getenv("BAD_DISK_ERRNO");
    char text[16] = {0};
    if (!place) return 0;
    if (!real_open) real_open = dlsym(RTLD_NEXT, "open64");
    int saved = errno, file = real_open(place, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        errno = saved;
        return 0;
    }
    ssize_t got = read(file, text, sizeof text - 1);
    close(file);
    errno = saved;
    return got > 0 ? atoi(text) : 0;
}

static int refuses_path(const char *path) {
    int code = is_below(path) ? refused() : 0;
    if (code) errno = code;
    return code;
}

static int refuses_file(int file) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return refuses_path(path);
}

#define WRITES(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC))

#define OPEN(name)                                                                   \
    int name(const char *path, int flags, ...) {                                     \
        static int (*real)(const char *, int, ...);                                  \
        if (!real) real = dlsym(RTLD_NEXT, #name);                                   \
        va_list rest;                                                                \
        va_start(rest, flags);                                                       \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;      \
        va_end(rest);                                                                \
        if (WRITES(flags) && refuses_path(path)) return -1;                          \
        return real(path, flags, mode);                                              \
    }
OPEN(open)
OPEN(open64)

#define ON_FILE(type, name, parameters, arguments)          \
    type name parameters {                                  \
        static type(*real) parameters;                      \
        if (!real) real = dlsym(RTLD_NEXT, #name);          \
        if (refuses_file(file)) return -1;                  \
        return real arguments;                              \
    }
ON_FILE(ssize_t, write, (int file, const void *data, size_t size), (file, data, size))
ON_FILE(ssize_t, pwrite, (int file, const void *data, size_t size, off_t at), (file, data, size, at))
ON_FILE(ssize_t, pwrite64, (int file, const void *data, size_t size, off64_t at), (file, data, size, at))
ON_FILE(int, fsync, (int file), (file))
ON_FILE(int, fdatasync, (int file), (file))
ON_FILE(int, ftruncate, (int file, off_t size), (file, size))
ON_FILE(int, ftruncate64, (int file, off64_t size), (file, size))

int unlink(const char *path) {
    static int (*real)(const char *);
    if (!real) real = dlsym(RTLD_NEXT, "unlink");
    return refuses_path(path) ? -1 : real(path);
}

int rename(const char *from, const char *to) {
    static int (*real)(const char *, const char *);
    if (!real) real = dlsym(RTLD_NEXT, "rename");
    return refuses_path(to) ? -1 : real(from, to);
}

int mkdir(const char *path, mode_t mode) {
    static int (*real)(const char *, mode_t);
    struct stat found;
    if (!real) real = dlsym(RTLD_NEXT, "mkdir");
    if (stat(path, &found) == 0) {
        errno = EEXIST;
        return -1;
    }
    return refuses_path(path) ? -1 : real(path, mode);
}
