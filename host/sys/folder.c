/* Folders, as folder.h says. */
#define _GNU_SOURCE
#include "folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "fault.h"

lk_status lh_names_add(lh_names *list, const char *name, lk_error *error) {
  if (list->count == list->room) {
    int64_t room = list->room ? 2 * list->room : 64;
    char **names = realloc(list->names, (size_t)room * sizeof *names);
    if (names == NULL) return lk_fail(error, LK_OOM, "out of memory");
    list->names = names;
    list->room = room;
  }
  char *copy = strdup(name);
  if (copy == NULL) return lk_fail(error, LK_OOM, "out of memory");
  list->names[list->count++] = copy;
  return LK_OK;
}

static int compare_names(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

void lh_names_sort(lh_names *list) {
  if (list->count == 0) return;
  qsort(list->names, (size_t)list->count, sizeof *list->names, compare_names);
}

void lh_names_free(lh_names *list) {
  for (int64_t i = 0; i < list->count; i++) free(list->names[i]);
  free(list->names);
  *list = (lh_names){0};
}

static bool is_folder(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

lk_status lh_folder_make(const char *path, lk_error *error) {
  char *part = strdup(path);
  if (part == NULL) return lk_fail(error, LK_OOM, "out of memory");
  lk_status status = LK_OK;
  for (char *p = part + 1; *part && status == LK_OK; p++) {
    char here = *p;
    if (here != '/' && here != '\0') continue;
    *p = '\0';
    if (!is_folder(part) && (lh_fault("mkdir", part) ||
                             (mkdir(part, 0777) != 0 && !is_folder(part)))) {
      int err = errno == EEXIST ? ENOTDIR : errno;
      status = lk_fail_errno(error, err, "cannot make folder '%s'", part);
    }
    *p = here;
    if (here == '\0') break;
  }
  free(part);
  return status;
}

static bool is_dots(const char *name) {
  return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

lk_status lh_folder_list(const char *path, lh_names *names, lk_error *error) {
  DIR *folder = opendir(path);
  if (folder == NULL) {
    return lk_fail_errno(error, errno, "cannot list folder '%s'", path);
  }
  lk_status status = LK_OK;
  while (status == LK_OK) {
    errno = 0;
    struct dirent *entry = readdir(folder);
    if (entry == NULL) {
      if (errno) status = lk_fail_errno(error, errno, "cannot list '%s'", path);
      break;
    }
    if (!is_dots(entry->d_name)) {
      status = lh_names_add(names, entry->d_name, error);
    }
  }
  closedir(folder);
  lh_names_sort(names);
  return status;
}

lk_status lh_folder_glob(const char *pattern, lh_names *names,
                         lk_error *error) {
  glob_t found;
  int rc = glob(pattern, GLOB_NOSORT, NULL, &found);
  if (rc == GLOB_NOMATCH) return LK_OK;
  if (rc == GLOB_NOSPACE) return lk_fail(error, LK_OOM, "out of memory");
  if (rc != 0) return lk_fail(error, LK_IO, "cannot match '%s'", pattern);
  lk_status status = LK_OK;
  for (size_t i = 0; i < found.gl_pathc && status == LK_OK; i++) {
    status = lh_names_add(names, found.gl_pathv[i], error);
  }
  globfree(&found);
  lh_names_sort(names);
  return status;
}

/* Remove what is called `name` in the open folder `at`, deepest first. */
static int remove_at(int at, const char *name) {
  if (unlinkat(at, name, 0) == 0) return 0;
  if (errno != EISDIR && errno != EPERM) return errno == ENOENT ? 0 : -1;
  int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return -1;
  DIR *folder = fdopendir(fd);
  if (folder == NULL) {
    close(fd);
    return -1;
  }
  int rc = 0;
  for (struct dirent *e; rc == 0 && (e = readdir(folder));) {
    if (!is_dots(e->d_name)) rc = remove_at(fd, e->d_name);
  }
  int err = errno;
  closedir(folder);
  errno = err;
  return rc == 0 ? unlinkat(at, name, AT_REMOVEDIR) : -1;
}

lk_status lh_folder_remove_tree(const char *path, lk_error *error) {
  if (!lh_fault("remove", path) && remove_at(AT_FDCWD, path) == 0) {
    return LK_OK;
  }
  return lk_fail_errno(error, errno, "cannot remove '%s'", path);
}

lk_status lh_folder_disk(const char *path, int64_t *free_bytes, int64_t *total,
                         lk_error *error) {
  struct statvfs st;
  if (statvfs(path, &st) != 0) {
    return lk_fail_errno(error, errno, "cannot examine the disk of '%s'", path);
  }
  *free_bytes = (int64_t)st.f_bavail * (int64_t)st.f_frsize;
  *total = (int64_t)st.f_blocks * (int64_t)st.f_frsize;
  return LK_OK;
}
