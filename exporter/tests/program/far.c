/*
 * A name service (NSS) for tests: its accounts are the lines "NAME UID" of FAR_FILE. Without the
 * file it fails, or, with FAR_SILENT, says that there is no such account.  With FAR_LISTS it lists
 * them.
 */
#include <errno.h>
#include <nss.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>

static char nothing[] = "";

static enum nss_status missing(int *error)
{
#ifdef FAR_SILENT
    (void)error;
    return NSS_STATUS_NOTFOUND;
#else
    *error = errno;
    return NSS_STATUS_UNAVAIL;
#endif
}

/* The next account of `file` that has this name, or this uid if it is not -1; any for NULL. */
static enum nss_status next(FILE *file, const char *name, long uid, struct passwd *result,
                            char *buffer, size_t length, int *error)
{
    char found[64];
    long its;
    while (fscanf(file, "%63s %ld", found, &its) == 2) {
        if ((name && strcmp(name, found) != 0) || (uid >= 0 && uid != its))
            continue;
        if (snprintf(buffer, length, "%s", found) >= (int)length) {
            *error = ERANGE;
            return NSS_STATUS_TRYAGAIN;
        }
        memset(result, 0, sizeof *result);
        result->pw_name = buffer;
        result->pw_uid = result->pw_gid = its;
        result->pw_passwd = result->pw_gecos = result->pw_dir = result->pw_shell = nothing;
        return NSS_STATUS_SUCCESS;
    }
    return NSS_STATUS_NOTFOUND;
}

static enum nss_status look(const char *name, long uid, struct passwd *result, char *buffer,
                            size_t length, int *error)
{
    FILE *file = fopen(FAR_FILE, "re");
    if (!file)
        return missing(error);
    enum nss_status status = next(file, name, uid, result, buffer, length, error);
    fclose(file);
    return status;
}

enum nss_status _nss_far_getpwuid_r(uid_t uid, struct passwd *result, char *buffer, size_t length,
                                    int *error)
{
    return look(NULL, uid, result, buffer, length, error);
}

enum nss_status _nss_far_getpwnam_r(const char *name, struct passwd *result, char *buffer,
                                    size_t length, int *error)
{
    return look(name, -1, result, buffer, length, error);
}

#ifdef FAR_LISTS
static FILE *list;

enum nss_status _nss_far_setpwent(int stay)
{
    (void)stay;
    if (list)
        fclose(list);
    list = fopen(FAR_FILE, "re");
    return list ? NSS_STATUS_SUCCESS : NSS_STATUS_UNAVAIL;
}

enum nss_status _nss_far_endpwent(void)
{
    if (list)
        fclose(list);
    list = NULL;
    return NSS_STATUS_SUCCESS;
}

enum nss_status _nss_far_getpwent_r(struct passwd *result, char *buffer, size_t length, int *error)
{
    if (!list)
        return missing(error);
    return next(list, NULL, -1, result, buffer, length, error);
}
#endif
